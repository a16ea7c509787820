"""FedSA-LoRA: A and B are trained, only A is averaged (arXiv 2410.01463)."""

from comigs.methods.base import Method, unrouted_generalists

METHOD = Method(
    name="fedsa-lora",
    paper="arXiv 2410.01463",
    summary="LoRA's A is averaged, its B stays on the device",
    shares=lambda name: ".lora_A." in name,
    experts=unrouted_generalists,
)
