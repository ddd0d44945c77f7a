"""Compute embeddings from a 16 kHz waveform: log-mel windows, the network and its layers, PCA."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
