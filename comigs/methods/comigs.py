"""CoMiGS: generalists averaged, specialists and routers local (arXiv 2409.13931)."""

from comigs.methods.base import Method

METHOD = Method(
    name="comigs",
    paper="arXiv 2409.13931",
    summary="generalist experts averaged, specialist experts and routers stay on the device",
)
