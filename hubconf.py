"""Entry point of ``torch.hub.load``, with the interface and the numbers of torchvggish's.

>>> model = torch.hub.load("OWNER/vggish_pt", "vggish")         # doctest: +SKIP
>>> model("dog.wav")                                            # doctest: +SKIP

The package itself has more functions; see README.md.
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
    """Load VGGish with torchvggish's interface: path or array in, whitened 8-bit values (as float32) out.

    Args:
        pretrained: True loads Google's weights, which are downloaded on first use.
        preprocess: True if inputs are audio; False if they are log-mel examples (n, 1, 96, 64).
        postprocess: False for embeddings after a ReLU, neither whitened nor quantised.
        progress: True shows the progress of a download.
        options: ``device``, ``weights`` and ``pca`` of :class:`vggish_pt.compat.VGGish`.
    """
    from vggish_pt.compat import VGGish

    return VGGish(pretrained=pretrained, preprocess=preprocess, postprocess=postprocess, progress=progress, **options)
