"""What one device does in a round, with no thought of how messages travel."""
