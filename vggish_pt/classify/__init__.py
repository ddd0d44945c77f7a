"""Classifiers on top of VGGish: labelled data, probes, training, evaluation, prediction.

torch and other large libraries are imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
