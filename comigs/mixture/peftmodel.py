"""PEFT's model around a mixture: what PEFT does to adapters one by one is no good to a mixture."""

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from peft import PeftModelForCausalLM
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from comigs.backbone.stored import unpack
from comigs.errors import BadInput
from comigs.mixture.deltas import deltas_of, refuse_corrections
from comigs.mixture.gates import own_routers
from comigs.store.whole import shown_to_all

ROUTERS, SETTINGS = "router.safetensors", "experts.json"


@runtime_checkable
class Mixed(Protocol):
    """A block that stands in the place of a plain module."""

    def unmixed(self) -> nn.Module: ...


class MixtureModel(PeftModelForCausalLM):
    """A causal LM with experts, as `comigs.mixture.experts.add_experts` makes it.

    Attributes:
        comigs_settings: the experts, as experts.json has them.
    """

    comigs_settings: dict[str, Any]

    def merge_and_unload(
        self,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> PreTrainedModel:
        """The base with one expert in its weights; this model must not be used any more.

        Args:
            adapter_names: the expert, where there are several.

        Raises:
            BadInput: several experts would have to be merged, or there is none of that name.
        """
        names = list(self.peft_config) if adapter_names is None else adapter_names
        if len(names) != 1:
            raise BadInput(
                f"a mixture of {len(names)} experts has no dense weights; "
                f"merge_and_unload(adapter_names=[{next(iter(self.peft_config))!r}]) merges one"
            )
        if names[0] not in self.peft_config:
            raise BadInput(
                f"there is no expert {names[0]!r}; these are: {', '.join(self.peft_config)}"
            )
        return _to_plain(self, names[0])

    def unload(self) -> PreTrainedModel:
        """The bare base; this model must not be used any more."""
        return _to_plain(self, None)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the frozen weights are shared, and the experts are applied beside them."""
        raise BadInput("experts are not merged in place; merge_and_unload() gives a merged model")

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        **more: Any,
    ) -> None:
        """Write every expert as a PEFT folder of its own, the routers, and experts.json.

        Args:
            selected_adapters: only these experts, without routers.
            more: as PEFT takes it.

        Raises:
            BadInput: the base weights are corrected (`comigs.mixture.deltas`).
        """
        refuse_corrections(self)
        if not safe_serialization:
            raise BadInput("safe_serialization is False; experts are written as safetensors only")
        folder = Path(save_directory)
        names = list(self.peft_config) if selected_adapters is None else selected_adapters
        _save_adapters(self, folder, names, **more)
        if selected_adapters is None:
            state = more.get("state_dict") or self.state_dict()
            prefix = "base_model.model."
            routers = {
                name.removeprefix(prefix): state[name].detach().cpu().contiguous()
                for name in sorted(own_routers(self))
            }
            save_file(routers, folder / ROUTERS)
            text = json.dumps(self.comigs_settings, indent=2)
            (folder / SETTINGS).write_text(text + "\n", "utf-8")
        shown_to_all(folder)

    def create_or_update_model_card(self, output_dir: str) -> None:
        """None: PEFT's is a form to fill in. `comigs export` writes one."""


@torch.no_grad()
def _to_plain(model: Any, expert: str | None) -> PreTrainedModel:
    """The base of a model with experts, which must not be used any more.

    The frozen weights, which others may share, stay as they are: merged ones are new tensors.

    Args:
        model: as `add_experts` returns it.
        expert: whose LoRA and corrections are merged, with the attention LoRA; None: nobody's.
    """
    tree = model.get_base_model()
    first = next(iter(model.peft_config))
    unpack(tree)
    for path, layer in list(tree.named_modules()):
        if isinstance(layer, LoraLayer):
            linear = layer.get_base_layer()
            if expert is not None:
                _add(linear, _change(layer, expert if expert in layer.lora_A else first))
            tree.set_submodule(path, linear)
            if getattr(layer, "gates", ()):  # of a mixture on this linear alone; they are beside it
                del tree.get_submodule(path.rpartition(".")[0]).gates
    for path, block in list(tree.named_modules()):
        if isinstance(block, Mixed):
            tree.set_submodule(path, block.unmixed())
    del tree.peft_config
    return tree


def _change(layer: Any, name: str) -> Tensor:
    """What one expert adds to a linear's weight, out x in, fp32."""
    a, b = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
    change = layer.scaling[name] * (b @ a)
    if name in deltas_of(layer):
        a, b = deltas_of(layer)[name]
        change = change + b.float() @ a.float()
    return change


def _add(linear: Any, change: Tensor) -> None:
    change = change.t() if isinstance(linear, Conv1D) else change
    weight = (linear.weight.float() + change).to(linear.weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)


def _save_adapters(model: MixtureModel, folder: Path, names: list[str], **more: Any) -> None:
    """Write the named adapters to `folder`, one PEFT folder each.

    PEFT writes sets in the order of their hashes, which differs from process to process; here lists
    of words are sorted.

    Args:
        more: as PEFT's `save_pretrained` takes it.
    """
    PeftModelForCausalLM.save_pretrained(model, str(folder), selected_adapters=names, **more)
    for path in sorted(folder.glob("*/adapter_config.json")):
        settings = json.loads(path.read_text("utf-8"))
        text = json.dumps({k: _sorted(v) for k, v in settings.items()}, indent=2, sort_keys=True)
        path.write_text(text + "\n", "utf-8")


def _sorted(value: object) -> object:
    words = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return sorted(value) if words else value  # type: ignore[call-overload]
