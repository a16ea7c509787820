"""Lion (arXiv 2302.06675): half of AdamW's memory, a learning rate some ten times smaller."""

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats
from comigs.training.optimizers.directions import lion
from comigs.training.optimizers.stepping import Along


def make(named: Named, config: TrainConfig) -> Along:
    return Along(named, config, lion)


OPTIMIZER = LocalOptimizer(make, floats)
