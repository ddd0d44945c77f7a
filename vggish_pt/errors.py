"""Every error that this package raises on purpose.

Each message is one line that says what was wrong, with which input, and what to do about it.
"""

from __future__ import annotations


class VGGishError(Exception):
    """Base class of all errors raised on purpose by ``vggish_pt``."""


class AudioError(VGGishError):
    """Audio that cannot be found, read, decoded or used (empty, truncated, non-finite, ...).

    Attributes:
        source: name of the input, as the user gave it, or None.
    """

    def __init__(self, message: str, source: str | None = None) -> None:
        super().__init__(message)
        self.source = source


class WeightsError(VGGishError):
    """Weights that cannot be had, or that do not match what is expected of them."""


class CheckpointError(WeightsError):
    """A checkpoint or model file that is damaged, hostile, incomplete or of an unknown format."""


class DownloadError(WeightsError):
    """A download that failed from every address, or whose bytes are not the promised ones."""


class SettingsError(VGGishError, ValueError):
    """A setting or argument outside what it may be."""


class OutputError(VGGishError, OSError):
    """An output that cannot be written, or that exists already."""


class WorkerError(VGGishError):
    """Worker processes that cannot be started, or that failed for a reason that is no input's."""


class TrainingError(VGGishError):
    """Training that cannot begin or go on with this data, such as a loss that is not finite."""


class MissingDependencyError(VGGishError, ImportError):
    """An optional library that is not installed, or is installed but cannot be loaded."""


class AudioWarning(UserWarning):
    """Audio that can be used but is probably not what the caller meant."""


class OutputWarning(UserWarning):
    """An output that can be read but is not complete."""
