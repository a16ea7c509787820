"""The frozen base model: loaded once, mapped from its file, its families told apart."""
