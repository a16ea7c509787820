"""Frozen weights that are stored in one type and multiplied in another.

A weight is unpacked for each product that it is in, those of the backward pass too, in slices if it
is large, and no unpacked copy outlives its product: a base takes the memory of its storage and of
one slice. int8 and nf4 are bitsandbytes' (8-bit blocks, arXiv 2110.02861; 4-bit NormalFloat, QLoRA,
arXiv 2305.14314).
"""

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from comigs.backbone.arithmetic import multiply, product_type
from comigs.errors import BadInput

BLOCK = 64  # weights that share one scale
SLICE = 1 << 22  # weights that are unpacked at once
PER_BYTE = {"int8": 1, "nf4": 2}


class StoredLinear(nn.Linear):
    """A frozen linear, of a Linear or a Conv1D, whose weight is unpacked for every product.

    Attributes:
        kind: "int8" or "nf4"; None where the weight is only of another floating-point type.
        compute: type of its products, as `multiply` does them, of input and output.
        shape: of the unpacked weight, as it was: out x in, or in x out with `turned`.
    """

    absmax: Tensor | None
    code: Tensor | None

    def __init__(self, linear: nn.Module, kind: str | None, compute: torch.dtype) -> None:
        nn.Module.__init__(self)
        weight, bias = _weight(linear), cast(nn.Parameter | None, linear.bias)
        self.kind, self.compute, self.shape = kind, compute, tuple(weight.shape)
        self.turned = isinstance(linear, Conv1D)
        outputs, inputs = reversed(self.shape) if self.turned else self.shape
        self.in_features, self.out_features = inputs, outputs
        self.register_buffer("absmax", None)
        self.register_buffer("code", None, persistent=False)
        if kind:
            count, place = weight.numel(), weight.device
            packed = torch.empty(-(-count // PER_BYTE[kind]), 1, dtype=torch.uint8, device=place)
            weight = nn.Parameter(packed, requires_grad=False)
            self.code = _values().to(place) if kind == "int8" else None
            self.absmax = torch.empty(-(-count // BLOCK), dtype=torch.float32, device=place)
        self.weight = weight
        self.register_parameter("bias", bias)

    def pack(self, weight: Tensor) -> None:
        """Store `weight`, of the linear that this one stands for."""
        library, flat = quantiser(), weight.detach().float().contiguous()
        if self.kind == "nf4":
            packed, state = library.quantize_4bit(flat, blocksize=BLOCK, quant_type="nf4")
        else:
            packed, state = library.quantize_blockwise(flat, blocksize=BLOCK)
        self.weight = nn.Parameter(packed.view(-1, 1), requires_grad=False)
        self.absmax = state.absmax

    def slices(self) -> list[slice]:
        """Outputs that are computed together: all but where a large weight is unpacked."""
        as_it_is = self.kind is None and self.weight.dtype == self.compute
        whole = as_it_is or self.turned or (self.kind and self.in_features % BLOCK)
        step = self.out_features if whole else max(1, SLICE // self.in_features)
        return [slice(a, a + step) for a in range(0, self.out_features, step)]

    def dense(self, rows: slice | None = None) -> Tensor:
        """The weight, out x in, in the type that it is multiplied in; or the given rows of it."""
        weight, absmax, shape = self.weight, self.absmax, self.shape
        if rows:
            shape = (len(range(self.out_features)[rows]), self.in_features)
            if self.kind and absmax is not None:
                weight = weight[self._among(rows, PER_BYTE[self.kind])]
                absmax = absmax[self._among(rows, BLOCK)]
            else:
                weight = weight[rows]
        if self.kind:
            library = quantiser()
            state = library.QuantState(
                absmax=absmax,
                shape=torch.Size(shape),
                code=self.code,
                blocksize=BLOCK,
                quant_type=self.kind,
                dtype=self.compute,
            )
            unpack = library.dequantize_4bit if self.kind == "nf4" else library.dequantize_blockwise
            weight = unpack(weight, state).view(shape)
        weight = weight.to(self.compute)
        return weight.t() if self.turned else weight

    def _among(self, rows: slice, each: int) -> slice:
        """Where the weights of some rows are, if `each` of them are one entry."""
        return slice(rows.start * self.in_features // each, rows.stop * self.in_features // each)

    def forward(self, x: Tensor) -> Tensor:
        """Map ... x in to ... x out."""
        out: Tensor = _Product.apply(x.to(self.compute), self)
        return out


class _Product(torch.autograd.Function):
    """x W^T + b; backward unpacks W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLinear) -> Tensor:
        ctx.layer = layer
        slices = layer.slices()
        if len(slices) == 1:
            bias = () if layer.bias is None else (layer.bias,)
            return multiply(F.linear, x, layer.dense(), *bias)
        out = x.new_empty(*x.shape[:-1], layer.out_features)
        for rows in slices:
            out[..., rows] = multiply(F.linear, x, layer.dense(rows))
        return out if layer.bias is None else out.add_(layer.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        layer, (grad,) = ctx.layer, grads
        first, *more = layer.slices()
        if not more:
            return multiply(torch.matmul, grad, layer.dense()), None
        total = multiply(torch.matmul, grad[..., first], layer.dense(first)).float()
        for rows in more:
            total += multiply(torch.matmul, grad[..., rows], layer.dense(rows))
        return total.to(grad.dtype), None


def unlike(dtype: str, compute: str, device: str) -> bool:
    """Whether linears must be `StoredLinear`s, as products are not done as weights are stored."""
    product = product_type(getattr(torch, compute), device)
    return dtype in PER_BYTE or getattr(torch, dtype) != product


def store(model: PreTrainedModel, dtype: str, compute: str) -> None:
    """Make every linear of `model` a `StoredLinear`, and have all else computed in `compute`.

    Where `dtype` is int8 or nf4, so are the linears of the decoder from now on; on the meta device
    they are laid out only. Embeddings and head stay of 16 bits, or as they are.

    Args:
        model: whose weights are of a floating-point type.

    Raises:
        BadInput: int8 or nf4, where most of the weights are no linears.
    """
    if dtype in PER_BYTE and stacks_experts(model):
        raise BadInput(
            f"model.dtype is {dtype}; the native experts of {model.config.model_type} models are "
            "no linears, which alone are quantised: set model.dtype=bfloat16",
            "model.dtype",
        )
    kind, product = dtype if dtype in PER_BYTE else None, getattr(torch, compute)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if kind and embedding.weight.dtype == torch.float32:
        tied = head.weight is embedding.weight
        for module in (embedding, head):
            module.weight = nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)
        if tied:
            head.weight = embedding.weight
    for name, linear in list(_linears(model)):
        stored = StoredLinear(linear, None if linear is head else kind, product)
        if stored.kind and not linear.weight.is_meta:
            stored.pack(_weight(linear))
        model.set_submodule(name, stored)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_Cast(product))


def settle(model: PreTrainedModel, compute: str) -> None:
    """Put what is small, norms and biases, into the type that `store` was told."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            continue
        if isinstance(module, StoredLinear) and module.code is not None:
            module.code = _values().to(module.weight.device)  # no part of what is loaded
        for name, parameter in list(module.named_parameters(recurse=False)):
            if name != "weight" or not isinstance(module, StoredLinear):
                small = parameter.to(getattr(torch, compute))
                setattr(module, name, nn.Parameter(small, requires_grad=False))


def unpack(tree: nn.Module) -> None:
    """Make every `StoredLinear` a plain one again, in the type of its products."""
    for path, stored in list(tree.named_modules()):
        if isinstance(stored, StoredLinear):
            inputs, outputs = stored.in_features, stored.out_features
            with torch.device("meta"):
                linear = Conv1D(outputs, inputs) if stored.turned else nn.Linear(inputs, outputs)
            weight = stored.dense()
            weight = weight.t().contiguous() if stored.turned else weight
            linear.weight = nn.Parameter(weight, requires_grad=False)
            linear.bias = stored.bias
            tree.set_submodule(path, linear)


class _Cast:
    """A forward hook that puts what a module returns into a type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.to(self.dtype)


def _weight(module: nn.Module) -> nn.Parameter:
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def stacks_experts(model: nn.Module) -> bool:
    """Whether a base has native experts, whose weights are stacked in one tensor."""
    modules = (m for m in model.modules() if not isinstance(m, nn.Conv1d))
    return any(p.ndim == 3 for m in modules for p in m.parameters(recurse=False))


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All but those that do more than a product: native routers, as Llama 4 has them."""
    for name, module in model.named_modules():
        routes = hasattr(module, "top_k")
        if isinstance(module, nn.Linear | Conv1D) and not routes:
            yield name, module


@cache
def quantiser() -> ModuleType:
    """The library's functions.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import bitsandbytes.functional
    except ImportError as error:
        raise BadInput(
            f"model.dtype int8 and nf4 need bitsandbytes ({error}): pip install 'comigs[quant]'",
            "model.dtype",
        ) from None
    library: ModuleType = bitsandbytes.functional
    return library


@cache
def _values() -> Tensor:
    """The 256 values of int8; nf4's are in the library's kernels."""
    with torch.device("cpu"):
        values: Tensor = quantiser().create_dynamic_map()
    return values
