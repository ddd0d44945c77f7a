"""Entry point for ``torch.hub.load``, with the arguments and numbers of torchvggish's.

>>> model = torch.hub.load("OWNER/vggish_pt", "vggish")         # doctest: +SKIP
>>> model("dog.wav")                                            # doctest: +SKIP

The package, ``pip install vggish_pt``, has more features; see README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggish_pt.compat import VGGish

dependencies = [
    "torch",
    "numpy",
    "safetensors",
    "soundfile",
    "soxr",
    "pooch",
    "requests",
    "filelock",
    "rich",
    "google_crc32c",
    "cramjam",
    "lazy_loader",
]


def vggish(
    pretrained: bool = True, preprocess: bool = True, postprocess: bool = True, progress: bool = True, **options: Any
) -> VGGish:
    """Return VGGish with torchvggish's interface: it maps a path or array to whitened 8-bit values (as float32).

    Args:
        pretrained: whether to load Google's weights; they are downloaded on first use.
        preprocess: whether the input is audio; False for log-mel examples (n, 1, 96, 64).
        postprocess: whether to whiten and quantise; False for the embeddings after a ReLU.
        progress: whether to show the progress of a download.
        options: ``device``, ``weights`` and ``pca`` of :class:`vggish_pt.compat.VGGish`.
    """
    from vggish_pt.compat import VGGish

    return VGGish(pretrained=pretrained, preprocess=preprocess, postprocess=postprocess, progress=progress, **options)
