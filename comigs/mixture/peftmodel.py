"""PEFT's model around a mixture: what PEFT does to adapters one by one is no good to a mixture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModelForCausalLM
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from comigs.errors import BadInput
from comigs.mixture.deltas import refuse_corrections
from comigs.mixture.dense import to_plain
from comigs.mixture.peftfolder import save_adapters
from comigs.store.whole import shown_to_all

ROUTERS, SETTINGS = "router.safetensors", "experts.json"


class MixtureModel(PeftModelForCausalLM):
    """A causal LM with experts, as `comigs.mixture.experts.add_experts` makes it.

    Attributes:
        comigs_settings: the experts, as experts.json has them.
    """

    comigs_settings: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._native = self._routers(self.state_dict())  # which the base has itself

    @staticmethod
    def _routers(state: Mapping[str, Tensor]) -> set[str]:
        return {name for name in state if ".router." in name}

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
        return to_plain(self, names[0])

    def unload(self) -> PreTrainedModel:
        """The bare base; this model must not be used any more."""
        return to_plain(self, None)

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
        save_adapters(self, folder, names, **more)
        if selected_adapters is None:
            state = more.get("state_dict") or self.state_dict()
            prefix = "base_model.model."
            routers = {
                name.removeprefix(prefix): state[name].detach().cpu().contiguous()
                for name in sorted(self._routers(state) - self._native)
            }
            save_file(routers, folder / ROUTERS)
            text = json.dumps(self.comigs_settings, indent=2)
            (folder / SETTINGS).write_text(text + "\n", "utf-8")
        shown_to_all(folder)

    def create_or_update_model_card(self, output_dir: str) -> None:
        """None: PEFT's is a form to fill in. `comigs export` writes one."""
