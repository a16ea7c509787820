"""Text of the clients: reading it, turning it into tokens, drawing batches."""
