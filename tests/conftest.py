"""Shared by all tests: small models are fastest on one thread, and nothing is fetched."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    FLWR_TELEMETRY_ENABLED="0",
    RAY_USAGE_STATS_ENABLED="0",
    TORCHINDUCTOR_COMPILE_THREADS="1",  # no processes of its own for two small models
)

import torch

torch.set_num_threads(1)
