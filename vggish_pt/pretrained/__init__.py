"""Weights by name: the registry, downloads and their cache, and the Hub."""
