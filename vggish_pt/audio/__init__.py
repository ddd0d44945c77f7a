"""Read audio: files, bytes, file objects, arrays and tensors to blocks of one channel, and on to 16 kHz."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
