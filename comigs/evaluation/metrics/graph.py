"""The weights in [0, 1] that a client has learnt of its peers (`cobo`)."""

from comigs.evaluation.metrics import OfPeers

METRIC = OfPeers()
