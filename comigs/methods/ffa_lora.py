"""FFA-LoRA: A stays at its common start, B is averaged, so the average is exact (2403.12313)."""

from comigs.methods.base import Method, unrouted_generalists


def only_b(name: str) -> bool:
    return ".lora_B." in name


METHOD = Method(
    name="ffa-lora",
    paper="arXiv 2403.12313",
    summary="LoRA's A stays at its common random start; only B is trained and averaged",
    shares=only_b,
    experts=unrouted_generalists,
    learns=only_b,
)
