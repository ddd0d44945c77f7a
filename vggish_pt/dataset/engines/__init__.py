"""dataset.engines."""
