"""Centralized training: everybody's text on one machine, the same total number of steps."""

from dataclasses import replace

from comigs.methods.base import Method, all_specialists

METHOD = Method(
    name="centralized",
    paper="reference",
    summary="one machine trains on everybody's text for as many steps as all devices together",
    experts=lambda experts: replace(all_specialists(experts), routed=False),
    pooled=True,
)
