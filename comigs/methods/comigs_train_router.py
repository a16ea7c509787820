"""CoMiGS whose routers learn on training text: the ablation of arXiv 2409.13931."""

from comigs.methods.base import Method

METHOD = Method(
    name="comigs-train-router",
    paper="arXiv 2409.13931",
    summary="comigs, but routers learn on training text as well",
    router="train",
)
