"""VGGish audio embeddings in PyTorch.

>>> from vggish_pt import VGGish
>>> model = VGGish.from_pretrained("synthetic")
>>> result = model.embed("dog.wav")          # doctest: +SKIP

Importing this package is cheap: each name is imported from its module on first use, and torch with it.
The names stand in ``__init__.pyi``.
"""

import lazy_loader

from vggish_pt.utils import moved

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

moved.install()
