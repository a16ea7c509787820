"""FedAvg: every expert travels and is averaged, no router (McMahan et al., arXiv 1602.05629)."""

from dataclasses import replace

from comigs.methods.base import Method, all_generalists

METHOD = Method(
    name="fedavg",
    paper="arXiv 1602.05629",
    summary="every expert is averaged over devices; their outputs are averaged without a router",
    experts=lambda experts: replace(all_generalists(experts), routed=False),
)
