"""The Flower ClientApp and what leaves a device."""
