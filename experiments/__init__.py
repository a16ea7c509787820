"""Presets (*.yaml), suites, recipes and benchmarks."""
