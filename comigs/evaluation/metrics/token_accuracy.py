"""The share of the predicted tokens that are the model's first choice, from 0 to 1."""

import torch
from torch import Tensor, nn

from comigs.backbone.head import first_choices
from comigs.config.settings import ClientConfig
from comigs.data.tokens import consecutive_windows, predictions
from comigs.data.windows import read_marks
from comigs.evaluation.perplexity import evaluation_batch


@torch.no_grad()
def token_accuracy(model: nn.Module, tokens: Tensor, config: ClientConfig) -> float:
    device, right = next(model.parameters()).device, 0
    for windows in consecutive_windows(tokens, evaluation_batch(config), config.data.seq_len):
        batch = read_marks(windows)
        at = None if batch.positions is None else batch.positions.to(device)
        chosen = first_choices(model, batch.ids.to(device), at)
        right += int((chosen == batch.targets.flatten().to(device)).sum())
    return right / predictions(tokens)


METRIC = token_accuracy
