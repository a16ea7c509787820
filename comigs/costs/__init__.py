"""What a run takes, predicted: work, memory, bytes, time; and what fits on a device."""
