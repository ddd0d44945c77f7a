"""Start of the training loop on one device, or in one process for each of several devices."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from torch.multiprocessing.spawn import ProcessRaisedException

from vggish_pt.classify.training.job import Job
from vggish_pt.classify.training.loop import TrainingLoop
from vggish_pt.classify.training.progress import Watch
from vggish_pt.errors import TrainingError


def fit(job: Job, watch: Watch) -> dict[str, Any]:
    """Train, and write the results into the run folder.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        TrainingError: the loss is not finite.
        CheckpointError: the checkpoint to resume from is damaged.
        OutputError: the run folder cannot be written.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    settings = job.settings
    several = settings.devices > 1
    strategy: Any = "auto"
    if several:
        # With gradual unfreezing, the upper blocks have no gradients at first.
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=settings.backbone == "gradual")
    with _quiet_lightning():
        fabric = Fabric(
            accelerator=job.device.type,
            devices=settings.devices if job.device.index is None else [job.device.index],
            strategy=strategy,
            precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        )
        if several:
            try:
                fabric.launch(_run_in_process, _Opaque(job))
            except ProcessRaisedException as error:
                last = str(error).strip().splitlines()[-1]
                raise TrainingError(f"training failed on one of the devices: {last}") from error
        else:
            TrainingLoop(fabric, job, watch).run()
    metrics = job.run.read_metrics()
    if metrics is None:
        raise TrainingError(f"{job.run.path}: training ended without results; continue it with --resume")
    return metrics


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's hints and warnings, which are for its direct users."""
    # Lightning's log messages go to one of these loggers, depending on which of its packages are imported.
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Opaque:
    """Container that Fabric passes to another process without converting the tensors and modules in it."""

    def __init__(self, job: Job) -> None:
        self.job = job


def _run_in_process(fabric: Any, container: _Opaque) -> None:
    job = container.job
    job.model = copy.deepcopy(job.model)  # tensors sent to several processes share their memory
    TrainingLoop(fabric, job, lambda _: None).run()
