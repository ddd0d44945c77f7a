"""Result of embedding one source."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from vggish_pt.errors import VGGishError


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of one source.

    Attributes:
        values: (n, 128) float32, or uint8 if quantised; for another layer (n, ...). On the CPU.
        start: (n,) float64, start of each window in seconds.
        end: (n,) float64, end of each window in seconds: ``start + 0.975``. Padded windows end after the audio.
        source: name of the source.
        duration: seconds of audio in the source.
    """

    values: Tensor
    start: Tensor
    end: Tensor
    source: str = field(default="", compare=False)
    duration: float = field(default=0.0, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return (
            f"Embeddings(values={tuple(self.values.shape)} {self.values.dtype}, "
            f"source={self.source!r}, duration={self.duration:.3f} s)"
        )


def raise_if_error(result: Embeddings | VGGishError) -> Embeddings:
    """Return the embeddings, or raise the error in their place."""
    if isinstance(result, VGGishError):
        raise result
    return result
