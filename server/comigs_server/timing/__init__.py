"""When updates are there: the simulated clock, those that come late, clients that are at work."""
