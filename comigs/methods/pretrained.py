"""The base model as it is: no training."""

from comigs.methods.base import Method

METHOD = Method(
    name="pretrained",
    paper="reference",
    summary="the base model as it is, without training",
    shares=lambda name: False,
    trains=False,
)
