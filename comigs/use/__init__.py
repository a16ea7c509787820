"""What a user does with a finished run."""
