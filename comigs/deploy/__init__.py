"""Projects for a federation on Flower, for compose and for clusters: keys, services, upkeep."""
