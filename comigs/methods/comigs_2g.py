"""CoMiGS with generalists only: every expert averaged, routers local (arXiv 2409.13931)."""

from comigs.methods.base import Method, all_generalists

METHOD = Method(
    name="comigs-2g",
    paper="arXiv 2409.13931",
    summary="every expert is a generalist: all averaged, only routers stay on the device",
    experts=all_generalists,
)
