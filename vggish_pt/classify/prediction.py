"""Result of a classifier for one source."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """Scores of one source. All tensors are on the CPU.

    Attributes:
        scores: (classes,) float32 of the whole clip: probabilities that sum to 1 (single-label), or an independent
            probability of each class (multi-label).
        window_scores: (n, classes) float32 of each window.
        start: (n,) float64 start of each window, in seconds.
        end: (n,) float64 end of each window, in seconds.
        labels: names of the classes.
        source: name of the source.
        duration: seconds of audio in the source.
    """

    scores: Tensor
    window_scores: Tensor
    start: Tensor
    end: Tensor
    labels: tuple[str, ...]
    source: str = field(default="", compare=False)
    duration: float = field(default=0.0, compare=False)

    @property
    def best(self) -> str:
        """Class with the highest score."""
        return self.labels[int(self.scores.argmax())]

    def __repr__(self) -> str:
        score = float(self.scores.max())
        return f"Prediction(best={self.best!r}, score={score:.3f}, windows={len(self.start)}, source={self.source!r})"
