"""Fréchet audio distance of audio, embeddings or saved statistics."""

from vggish_pt.fad.distance import (
    Embedded,
    Extrapolated,
    Interval,
    bootstrap,
    extrapolate,
    frechet_audio_distance,
    frechet_distance,
    per_file,
    statistics_of,
    too_small,
)
from vggish_pt.fad.statistics import Statistics

__all__ = [
    "Embedded",
    "Extrapolated",
    "Interval",
    "Statistics",
    "bootstrap",
    "extrapolate",
    "frechet_audio_distance",
    "frechet_distance",
    "per_file",
    "statistics_of",
    "too_small",
]
