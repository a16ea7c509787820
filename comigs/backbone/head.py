"""Cross-entropy over the vocabulary without the logits of all tokens.

The head is frozen, so that the only gradient is that of the hidden states. It is computed with the
loss, chunk by chunk, in the forward pass: no product is done twice, and the backward pass needs
one T x d tensor. (`torch.nn.functional.linear_cross_entropy` does the same, but on a CPU it copies
a bf16 head to fp32, and it returns a bf16 loss.)
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn

from comigs.backbone.families import family_of

CHUNK = 1 << 21  # logits held at once


def chunked_loss(
    model: nn.Module, ids: Tensor, targets: Tensor, position_ids: Tensor | None = None
) -> Tensor:
    """Sum of the cross-entropies of a causal LM.

    Args:
        model: a Hugging Face causal LM, bare or with adapters, whose head is frozen.
        ids: input tokens, n x L.
        targets: what follows each of them, n L; -100 where it does not count.
        position_ids: of the tokens, n x L, where they begin again in a row.
    """
    hidden, logits, rows = _hidden(model, ids, position_ids)
    return _Chunked.apply(hidden, targets, logits, rows)


def first_choices(model: nn.Module, ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
    """The likeliest token behind each of `ids` (n x L): n L. The arguments are `chunked_loss`'s."""
    hidden, logits, rows = _hidden(model, ids, position_ids)
    return torch.cat([logits(part).argmax(-1) for part in hidden.split(rows)])


def _hidden(
    model: nn.Module, ids: Tensor, position_ids: Tensor | None
) -> tuple[Tensor, Callable[[Tensor], Tensor], int]:
    """Hidden states, n L x d; what makes logits of some of them; and of how many at once."""
    more = placed(model, position_ids)
    hidden = backbone_of(model)(input_ids=ids, use_cache=False, **more).last_hidden_state
    causal = _causal(model)
    head, finish = causal.get_output_embeddings(), _finish(causal.config)
    rows = max(1, CHUNK // head.weight.shape[0])
    return hidden.flatten(0, 1), lambda part: finish(head(part)).float(), rows


def placed(model: nn.Module, position_ids: Tensor | None) -> dict[str, Tensor]:
    """Arguments of a pass over rows of examples, or of plain text (None).

    Empty for families whose rows hold one example each: not all of those take positions.
    """
    tells = position_ids is not None and family_of(_causal(model).config.model_type).packs
    return {"position_ids": position_ids} if tells else {}  # type: ignore[dict-item]


def backbone_of(model: nn.Module) -> Any:
    """The causal LM without its head: maps ids to hidden states."""
    causal = _causal(model)
    inner = causal.base_model  # by a prefix of names, which is another in Llama 4's checkpoints
    return causal.model if inner is causal else inner


def _causal(model: nn.Module) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _finish(config: Any) -> Callable[[Tensor], Tensor]:
    """What a family does to the product with its head: a factor (Granite, Cohere), a bound (Gemma).

    Both are in the model's config; most families have neither.
    """
    factor = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return lambda x: cap * torch.tanh(x / cap)
    return (lambda x: x * factor) if factor != 1 else (lambda x: x)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, logits: Callable[[Tensor], Tensor], rows: int
    ) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows].detach()
            goal = targets[start : start + rows]
            with torch.set_grad_enabled(gradient is not None):
                loss = F.cross_entropy(logits(part.requires_grad_()), goal, reduction="sum")
            total += loss.detach()
            if gradient is not None:
                gradient[start : start + rows] = torch.autograd.grad(loss, part)[0]
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * d_total, None, None, None
