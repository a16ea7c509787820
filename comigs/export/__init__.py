"""What a finished run's models are taken away as, and how they come back."""
