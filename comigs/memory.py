"""Stand-in for the predictor of peak memory: a rough count, to be replaced."""

from dataclasses import dataclass

from comigs.config import RunConfig
from comigs.cost import parameter_counts
from comigs.shapes import skeleton


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of local training."""

    base: int
    adapters: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        return self.base + self.adapters + self.gradients + self.moments + self.activations


def peak_memory(config: RunConfig, client: int) -> Memory:
    """Predict the peak of one client's training."""
    own = config.for_client(client)
    counts, base = parameter_counts(own, client), skeleton(own.model.name)
    width = 4 if own.model.dtype == "float32" else 2
    adapters = 4 * (counts.generalist + counts.specialists + counts.router)
    tokens = own.micro_batch * own.data.seq_len
    kept = sum(8 * x.down.outputs + 4 * x.down.inputs for x in base.layers) * width
    logits = 3 * 4 * base.vocabulary
    return Memory(counts.base * width, adapters, adapters, 2 * adapters, tokens * (kept + logits))
