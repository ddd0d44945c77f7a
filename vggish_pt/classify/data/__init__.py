"""classify.data."""
