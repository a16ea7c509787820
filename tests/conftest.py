"""Shared by all tests: small models are fastest on one thread, and nothing is fetched."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    FLWR_TELEMETRY_ENABLED="0",
    RAY_USAGE_STATS_ENABLED="0",
)

import torch

torch.set_num_threads(1)
