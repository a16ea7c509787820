"""How updates become the next round's tensors: strategy, privacy, delivery."""
