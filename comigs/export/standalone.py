"""The whole mixture as a folder that Transformers loads without comigs, with code of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from comigs.config.experts import PLAIN
from comigs.errors import BadInput
from comigs.export.weights import stored_type, write_settings, write_weights
from comigs.federation.run import Client
from comigs.mixture.deltas import delta_tensors, deltas_of
from comigs.mixture.experts import ExpertMLP, expert_blocks

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
        BadInput: the router is of a kind, or decides in a way, that the code does not know.
    """
    if expert_blocks(model)[0].routed:
        _check_routers(client, model)
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


def _check_routers(client: Client, model: Any) -> None:
    if client.experts.router != "linear":
        raise BadInput(
            f"experts.router {client.experts.router!r} is not taken along by --as transformers, "
            "which has linear routers; --as peft has the experts"
        )
    for key, value in model.comigs_settings.get("routes", {}).items():
        if value != getattr(PLAIN, key):
            raise BadInput(
                f"router.{key} {value!r} is not taken along by --as transformers, whose code "
                "routes each token in each layer; --as peft has the experts"
            )


def _shape(tree: PreTrainedModel) -> dict[str, Any]:
    """What the code builds the mixture by."""
    blocks = {path: m for path, m in tree.named_modules() if isinstance(m, ExpertMLP)}
    layers = {path: m for path, m in tree.named_modules() if isinstance(m, LoraLayer)}
    inside = tuple(f"{path}." for path in blocks)
    outside = {path: m for path, m in layers.items() if not path.startswith(inside)}
    # In some families the mixture is on one linear of each layer, whose gates are beside it.
    linears = {path: m.gates[0] for path, m in outside.items() if getattr(m, "gates", ())}
    mixture: Any = next(iter([*blocks.values(), *linears.values()]))
    name, lora = mixture.names[0], next(iter(layers.values()))
    return {
        "family": asdict(next(iter(blocks.values())).family) if blocks else {},
        "names": mixture.names,
        "top_k": mixture.top_k,
        "routed": mixture.router is not None,
        "rank": lora.r[name],
        "scale": lora.scaling[name],
        "dropout": getattr(lora.lora_dropout[name], "p", 0.0),
        "mlps": list(blocks),
        "linears": list(linears),
        "attention": [path for path in outside if path not in linears],
        "corrections": {
            path: {each: len(a) for each, (a, _) in deltas_of(layer).items()}
            for path, layer in layers.items()
            if deltas_of(layer)
        },
    }
