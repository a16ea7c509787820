"""FlexLoRA: the mean of all deltas, cut by SVD to each device's rank (arXiv 2402.11505)."""

from comigs.methods.base import Method, unrouted_generalists

METHOD = Method(
    name="flexlora",
    paper="arXiv 2402.11505",
    summary="the mean of the devices' deltas, cut by SVD to the rank of each",
    aggregator="flexlora",
    experts=unrouted_generalists,
    feedback=False,
)
