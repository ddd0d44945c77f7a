"""Classifiers on top of VGGish: labelled data, probes, training, evaluation, prediction.

Importing this package is cheap: torch and everything heavy load with the first name that needs them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
