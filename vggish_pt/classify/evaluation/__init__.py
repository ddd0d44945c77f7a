"""Apply a classifier: predictions, events, metrics, tables and figures."""
