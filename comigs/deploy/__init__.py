"""A compose project for a federation on Flower: certificates, keys, services, upkeep."""
