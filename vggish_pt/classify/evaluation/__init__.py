"""classify.evaluation."""
