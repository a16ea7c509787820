"""Text from several models over one frozen base at once: voices, rows of a batch, who is served."""
