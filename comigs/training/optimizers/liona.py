"""LionA (arXiv 2410.23922): Lion with updates of momentum's length, to train without warmup."""

from comigs.config.train import TrainConfig
from comigs.training.optimizers import LocalOptimizer, Named, floats
from comigs.training.optimizers.directions import liona
from comigs.training.optimizers.stepping import Along


def make(named: Named, config: TrainConfig) -> Along:
    return Along(named, config, liona)


OPTIMIZER = LocalOptimizer(make, floats)
