"""REX (arXiv 2107.04197): slow at first, then ever faster, to 0."""


def rex(progress: float) -> float:
    return (1 - progress) / (1 - progress / 2)


SCHEDULE = rex
