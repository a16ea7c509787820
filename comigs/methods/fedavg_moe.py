"""A federated mixture of experts: every expert and the routers are averaged."""

from comigs.methods.base import Method, all_generalists, everything, same_experts

METHOD = Method(
    name="fedavg-moe",
    paper="arXiv 2409.13931",
    summary="every expert and the routers are averaged; all learn jointly on training text",
    shares=everything,
    experts=all_generalists,
    router="joint",
    accepts=same_experts,
)
