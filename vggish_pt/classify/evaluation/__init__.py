"""Predictions, events, metrics, tables and figures of classifiers."""
