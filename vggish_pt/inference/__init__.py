"""Embed many clips: settings, devices, batches across clips, worker processes, streams."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
