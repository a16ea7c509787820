"""What a run shows while it runs, and to other tools."""
