"""Local training: nothing travels, experts averaged without a router."""

from dataclasses import replace

from comigs.methods.base import Method, all_specialists

METHOD = Method(
    name="local",
    paper="baseline",
    summary="each device trains alone; its experts are averaged without a router",
    experts=lambda experts: replace(all_specialists(experts), routed=False),
)
