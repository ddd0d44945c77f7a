"""Result of embedding one source."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from vggish_pt.errors import VGGishError


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one source.

    Attributes:
        values: (n, 128) float32, or uint8 if quantised; of an earlier layer, its shape behind n. On the CPU.
        start: (n,) float64, when each window starts, in seconds.
        end: (n,) float64, when it ends: ``start + 0.975``. Where audio was padded, later than the audio's end.
        source: name of the source.
        duration: seconds of audio that the source held.
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
