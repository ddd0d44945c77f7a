"""What does not decide the result of a training run, checked in one place and cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from vggish_pt.inference.devices import check_device_name
from vggish_pt.utils.checks import choice, number


@dataclass(frozen=True)
class RunOptions:
    """What does not decide the result of a training run.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        workers: processes that prepare batches; 0 for none.
        decoders: threads that decode files at the beginning.
        cache: "disk" keeps decoded audio in the run folder while training runs, "memory" in memory.
        checkpoint_seconds: how often the state is saved; it is after every epoch anyway.
        checkpoint_steps: the same in steps of the optimizer; 0 for never.
        skip_unreadable: whether to leave out files that cannot be read; otherwise they are an error.

    Raises:
        SettingsError: a value outside what it may be.
    """

    device: str = "auto"
    workers: int = 0
    decoders: int = 1
    cache: str = "disk"
    checkpoint_seconds: float = 60.0
    checkpoint_steps: int = 0
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        check_device_name(self.device)
        choice("cache", self.cache, ("disk", "memory"))
        number("checkpoint_seconds", self.checkpoint_seconds, 0)
