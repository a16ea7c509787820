"""Federations made from data sets: reading, recognising, partitioning, splitting, writing."""
