"""Train a classifier: settings, the loop, and the folder of a run."""
