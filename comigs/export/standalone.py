"""The whole mixture as a folder that Transformers loads without comigs, with code of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from comigs.errors import BadInput
from comigs.export.weights import stored_type, write_settings, write_weights
from comigs.federation.run import Client
from comigs.mixture.deltas import delta_tensors, deltas_of
from comigs.mixture.experts import ExpertMLP

CODE = Path(__file__).with_name("modeling_comigs.py")
MODEL_TYPE = "comigs"
AUTO = {
    "AutoConfig": f"{CODE.stem}.MixtureConfig",
    "AutoModelForCausalLM": f"{CODE.stem}.MixtureForCausalLM",
}


def write_standalone(client: Client, model: Any, place: Path) -> None:
    """Write weights, configuration, code and generation settings to `place`.

    The base's weights are written as they are stored, int8 and nf4 unpacked; the folder loads in
    the type that the client computed in.

    Raises:
        BadInput: the router is of a kind, or the mixture in a place, that the code does not know.
    """
    if client.experts.router != "linear":
        raise BadInput(
            f"experts.router {client.experts.router!r} is not taken along by --as transformers, "
            "which has linear routers; --as peft has the experts"
        )
    tree: PreTrainedModel = model.get_base_model()
    mixture = {"base": tree.config.model_type, **model.comigs_settings, **_shape(tree)}
    write_settings(
        tree,
        place,
        model_type=MODEL_TYPE,
        architectures=["MixtureForCausalLM"],
        auto_map=AUTO,
        dtype=client.compute,
        mixture=mixture,
    )
    write_weights(tree, place, stored_type(client), delta_tensors(model))
    code = CODE.read_text("utf-8")
    for stands_in, kind in (("LlamaConfig", tree.config), ("LlamaForCausalLM", tree)):
        code = code.replace(stands_in, type(kind).__name__)
    (place / CODE.name).write_text(code, "utf-8")


def _shape(tree: PreTrainedModel) -> dict[str, Any]:
    """What the code builds the mixture by."""
    blocks = {path: m for path, m in tree.named_modules() if isinstance(m, ExpertMLP)}
    layers = {path: m for path, m in tree.named_modules() if isinstance(m, LoraLayer)}
    if not blocks:
        raise BadInput("--as transformers takes mixtures of MLPs; --as peft has these experts")
    block = next(iter(blocks.values()))
    lora: Any = block.get_submodule(block.family.down)
    name = block.names[0]
    return {
        "family": asdict(block.family),
        "names": block.names,
        "top_k": block.top_k,
        "routed": block.router is not None,
        "rank": lora.r[name],
        "scale": lora.scaling[name],
        "dropout": getattr(lora.lora_dropout[name], "p", 0.0),
        "mlps": list(blocks),
        "attention": [p for p in layers if not p.startswith(tuple(f"{b}." for b in blocks))],
        "corrections": {
            path: {each: len(a) for each, (a, _) in deltas_of(layer).items()}
            for path, layer in layers.items()
            if deltas_of(layer)
        },
    }
