"""FLAME: devices activate as many of the same experts as they can (arXiv 2506.16600).

Every device has all E experts at full rank, and its tokens go through k_i of them, which is what it
saves; `experts.top_k` may be a list. A layer of which only a part is active (k_i < E) puts out

    y = s_i sum_(e in top k_i) g_e MLP_e(x)

with a learnt s_i of each layer that stays on the device. Expert e of a layer is averaged by how
often it was trained: over devices with weights p_i f_ie, where p_i is a device's weight in a plain
mean and f_ie the share of its tokens that chose e in the round. Where every k_i is E this is
`fedavg-moe`.

The paper has a base with experts of its own and their trained router. Here the experts are LoRA on
one dense MLP, so that the router learns too, on training text with the experts, and is averaged;
the gates g sum to 1 for any k > 1, so that s_i starts at 1. Weights are f, not a power of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from comigs.config.experts import ExpertsConfig
from comigs.config.settings import RunConfig
from comigs.messages.fields import ACTIVATIONS
from comigs.methods.base import Method, all_generalists, same_experts

ROUTER = ".router."


def layout(experts: ExpertsConfig) -> ExpertsConfig:
    """Generalists; with a factor of the output where not all of them are active."""
    part = experts.total > 1 and experts.top_k != experts.total
    return replace(all_generalists(experts), router="rescaled" if part else "linear")


def shares(name: str) -> bool:
    """All but s."""
    return not name.endswith(f"{ROUTER}gain")


def besides(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """f of every layer's experts."""
    routers = {name: shape for name, shape in shapes.items() if ROUTER in name}
    return {f"{ACTIVATIONS}{n.partition(ROUTER)[0]}": s[:1] for n, s in routers.items()}


def accepts(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """One count of choices and one factor for each layer, and the same experts for all."""
    if config.experts.router != "linear":
        return "experts.router must be linear"
    if config.router.scope != "layer":
        return "router.scope must be layer"
    return same_experts(config, experts)


METHOD = Method(
    name="flame",
    paper="arXiv 2506.16600",
    summary="devices activate unequal numbers of experts, averaged by how often tokens chose them",
    shares=shares,
    aggregator="activations",
    experts=layout,
    router="joint",
    counts=True,
    besides=besides,
    accepts=accepts,
)
