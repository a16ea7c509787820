"""The Flower ServerApp of comigs: its loop, its aggregators and the grids that reach clients."""
