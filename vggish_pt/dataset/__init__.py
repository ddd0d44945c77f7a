"""Embed a whole dataset: find the inputs, embed them on one machine or a cluster, write, read back, report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
