"""A mixture of experts that each device trains alone."""

from comigs.methods.base import Method, all_specialists

METHOD = Method(
    name="local-moe",
    paper="arXiv 2409.13931",
    summary="each device trains its experts and routers jointly on its training text, alone",
    experts=all_specialists,
    router="joint",
)
