"""Readers of checkpoints: TensorFlow's two formats, without TensorFlow, and PyTorch's state dicts.

>>> with open_checkpoint("vggish_model.ckpt") as checkpoint:    # doctest: +SKIP
...     checkpoint.variables["vggish/fc2/biases"].shape
...     checkpoint.read("vggish/fc2/biases")
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.checkpoints.base import Checkpoint, Variable
from vggish_pt.utils.text import error_reason

__all__ = ["Checkpoint", "Variable", "open_checkpoint"]

_V2_PART = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint of any known format.

    Args:
        path: a TensorFlow V1 file; the prefix, the index or a data file of a TensorFlow V2 checkpoint; or a state
            dict in a file that ``torch.save`` wrote.

    Returns:
        The open checkpoint, a context manager.

    Raises:
        CheckpointError: the file is missing, damaged or of an unknown format.
    """
    from vggish_pt.pretrained.checkpoints.ports import LEGACY_MAGIC, ZIP_MAGIC, StateDict
    from vggish_pt.pretrained.checkpoints.sstable import MAGIC
    from vggish_pt.pretrained.checkpoints.tensorflow_v1 import TensorFlowV1
    from vggish_pt.pretrained.checkpoints.tensorflow_v2 import TensorFlowV2

    path = Path(path)
    if part := _V2_PART.search(path.name):
        return TensorFlowV2(path.with_name(path.name[: part.start()]))
    try:
        if not path.exists() and path.with_name(path.name + ".index").exists():
            return TensorFlowV2(path)
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder; name the checkpoint file in it, or a V2 checkpoint's prefix")
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is not a file")
        with path.open("rb") as file:
            head = file.read(len(LEGACY_MAGIC))
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(MAGIC)))
            tail = file.read()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file, nor {path.name}.index in its folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error_reason(error)})") from None
    if tail == MAGIC:
        return TensorFlowV1(path)
    if head.startswith(ZIP_MAGIC) or head == LEGACY_MAGIC:
        return StateDict(path)
    raise CheckpointError(
        f"{path}: no checkpoint of a known format (TensorFlow V1 or V2, or PyTorch); it may be cut off, compressed, "
        "or a web page that was saved under the file's name"
    )
