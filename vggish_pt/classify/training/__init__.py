"""Training of a classifier: settings, loop and run folder."""
