"""CoMiGS with specialists only: nothing travels (arXiv 2409.13931)."""

from comigs.methods.base import Method, all_specialists

METHOD = Method(
    name="comigs-2s",
    paper="arXiv 2409.13931",
    summary="every expert is a specialist: nothing travels, routers learn on validation text",
    experts=all_specialists,
)
