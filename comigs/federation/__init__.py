"""Who takes part: the clients of a run, their devices, and who is chosen for a round."""
