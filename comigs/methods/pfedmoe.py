"""pFedMoE: one shared and one local expert, the router learns with them (arXiv 2402.01350)."""

from comigs.methods.base import Method

METHOD = Method(
    name="pfedmoe",
    paper="arXiv 2402.01350",
    summary="generalists averaged, specialists local; the router learns jointly on training text",
    router="joint",
)
