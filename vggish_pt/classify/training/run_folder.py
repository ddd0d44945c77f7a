"""Run folder of a training: its results, logs, and the checkpoint that ``--resume`` continues from."""

from __future__ import annotations

import csv
import io
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.classify import folder as store
from vggish_pt.classify.config import ClassifierConfig
from vggish_pt.classify.folder import LABELS_NAME
from vggish_pt.classify.training.settings import differences
from vggish_pt.errors import CheckpointError, OutputError, SettingsError
from vggish_pt.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
from vggish_pt.utils.atomic import whole_file
from vggish_pt.utils.json_file import object_text, read_object, write_text
from vggish_pt.utils.versions import versions

if TYPE_CHECKING:
    import torch

METRICS_NAME = "metrics.json"
VERSIONS_NAME = "versions.json"
SPLIT_NAME = "split.csv"
CURVE_NAME = "curve.png"

_CHECKPOINT_VERSION = 1
_LIBRARIES = ("torch", "lightning", "numpy", "scikit-learn", "soxr", "soundfile", "torchaudio")
_OWN = (
    *(CONFIG_NAME, WEIGHTS_NAME, LABELS_NAME, CARD_NAME),
    *(METRICS_NAME, VERSIONS_NAME, SPLIT_NAME, CURVE_NAME, "logs", "checkpoints", "cache"),
)


class TrainingRun:
    """Run folder of a training.

    Attributes:
        path: path of the folder.
        logs: folder of TensorBoard's files and ``metrics.csv``.
        last: checkpoint to resume from.
        best: weights of the best epoch so far.
        cache: folder of decoded audio, while training runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.last = path / "checkpoints" / "last.ckpt"
        self.best = path / "checkpoints" / "best.safetensors"
        self.cache = path / "cache"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against a second training. The system releases the lock when the process ends in any way.

        Raises:
            OutputError: another training is running in the folder, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"{self.path}: another training is running in this folder") from None
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        try:
            yield
        finally:
            lock.release()

    def prepare(self, config: ClassifierConfig, *, resume: bool, overwrite: bool) -> bool:
        """Prepare the folder for training.

        Args:
            config: configuration of the classifier to train. Its ``training["settings"]`` and ``training["data"]`` must
                equal those of a training to resume.
            resume: continue the training in the folder, if there is one.
            overwrite: replace the training in the folder.

        Returns:
            True if the folder holds a training to continue, or a finished one.

        Raises:
            OutputError: the folder is not empty, and neither ``resume`` nor ``overwrite`` is given.
            SettingsError: the training in the folder has other settings.
            CheckpointError: the training in the folder is damaged, or of a newer version.
        """
        existing = [name for name in _OWN if (self.path / name).exists()]
        if resume and (self.path / CONFIG_NAME).exists():
            self._compare(config)
            return self.last.exists() or (self.path / METRICS_NAME).exists()
        if existing and not overwrite:
            hint = "continue it (--resume), replace it (--overwrite), or choose another folder"
            raise OutputError(f"{self.path}: holds a training already ({existing[0]}); {hint}")
        foreign = [p.name for p in self.path.iterdir() if p.name not in (*_OWN, ".lock")]
        if foreign and not existing:
            raise OutputError(f"{self.path}: holds other files ({foreign[0]}); choose a new folder")
        for name in existing:
            target = self.path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        write_text(self.path / CONFIG_NAME, config.to_json())
        write_text(self.path / VERSIONS_NAME, object_text({**versions(*_LIBRARIES), "system": platform.platform()}))
        for folder in (self.logs, self.last.parent):
            folder.mkdir(exist_ok=True)
        return False

    def _compare(self, config: ClassifierConfig) -> None:
        before = store.read_config(self.path)
        old = {**before.training.get("settings", {}), "data": before.training.get("data")}
        new = {**json.loads(json.dumps(config.training["settings"])), "data": config.training["data"]}
        if found := differences(old, new):
            raise SettingsError(
                f"{self.path}: cannot be resumed with other settings ({'; '.join(found)}); use the settings "
                "of its start, or another folder"
            )

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            OutputError: the checkpoint cannot be written.
        """
        import torch

        buffer = io.BytesIO()
        torch.save({"checkpoint_version": _CHECKPOINT_VERSION, **state}, buffer)
        self.last.parent.mkdir(exist_ok=True)
        with whole_file(self.last, overwrite=True) as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the state that :meth:`save_checkpoint` wrote last, or None if there is none.

        Raises:
            CheckpointError: the checkpoint is damaged, or of a newer version.
        """
        import torch

        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
            version = state["checkpoint_version"]
        except Exception as error:  # a damaged file may raise anything
            raise CheckpointError(
                f"{self.last}: damaged ({type(error).__name__}); start again with --overwrite"
            ) from None
        if version > _CHECKPOINT_VERSION:
            raise CheckpointError(
                f"{self.last}: written by a newer vggish_pt; upgrade with: pip install --upgrade vggish_pt"
            )
        loaded: dict[str, Any] = state
        return loaded

    def save_best(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of the best epoch so far.

        Raises:
            OutputError: the weights cannot be written.
        """
        from safetensors.torch import save

        with whole_file(self.best, overwrite=True) as file:
            file.write(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

    def load_best(self) -> dict[str, torch.Tensor]:
        """Return the weights that :meth:`save_best` wrote.

        Raises:
            CheckpointError: the weights are damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.best)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.best}: cannot be read ({error}); start again with --overwrite") from None

    def draw_curve(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write ``curve.png``: loss and metrics of each epoch.

        Raises:
            MissingDependencyError: matplotlib is not installed.
            OutputError: the file cannot be written.
        """
        from vggish_pt.classify.evaluation import figures
        from vggish_pt.utils.figures import save

        save(figures.learning_curve(history), self.path / CURVE_NAME)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write ``logs/metrics.csv``: a row for each epoch."""
        names = list(dict.fromkeys(name for row in history for name in row))
        _write_csv(self.logs / "metrics.csv", names, history)

    def write_split(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``split.csv``: the part of each clip."""
        _write_csv(self.path / SPLIT_NAME, ["path", "start", "end", "labels", "part"], rows)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write ``metrics.json``, which marks the training as finished."""
        write_text(self.path / METRICS_NAME, object_text(metrics, allow_nan=True))

    def read_metrics(self) -> dict[str, Any] | None:
        """Return the contents of ``metrics.json``, or None if the training has not finished."""
        path = self.path / METRICS_NAME
        if not path.exists():
            return None
        try:
            return read_object(path)
        except (OSError, CheckpointError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); start again with --overwrite") from None


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
