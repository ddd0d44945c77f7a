"""Errors and warnings of this package.

Each message is one line: what is wrong, with which input, and what to do.
"""

from __future__ import annotations


class VGGishError(Exception):
    """Base class of all errors of ``vggish_pt``."""


class AudioError(VGGishError):
    """Audio that cannot be found, read, decoded or used (empty, truncated, non-finite, ...).

    Attributes:
        source: name of the input, as the user gave it, or None.
    """

    def __init__(self, message: str, source: str | None = None) -> None:
        super().__init__(message)
        self.source = source


class WeightsError(VGGishError):
    """Weights that are not available, or do not match their digest or configuration."""


class CheckpointError(WeightsError):
    """A checkpoint or model file that is damaged, malicious, incomplete or of an unknown format."""


class DownloadError(WeightsError):
    """A download that failed from every address, or whose digest is wrong."""


class SettingsError(VGGishError, ValueError):
    """A setting or argument that is not valid."""


class OutputError(VGGishError, OSError):
    """An output that cannot be written or read, or that exists already."""


class WorkerError(VGGishError):
    """Worker processes that cannot be started, or that failed for a reason other than an input."""


class TrainingError(VGGishError):
    """Training that cannot start or continue, for example because the loss is not finite."""


class MissingDependencyError(VGGishError, ImportError):
    """An optional library that is not installed, or cannot be imported."""


class AudioWarning(UserWarning):
    """Audio that can be used but is probably not as intended."""


class OutputWarning(UserWarning):
    """An output that can be read but is not complete."""
