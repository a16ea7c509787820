"""Checked dataclasses from YAML: building, bounds, rules, and what each field means."""
