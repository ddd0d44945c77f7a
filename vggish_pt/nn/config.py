"""Configuration of a model: the contents of a model folder's ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vggish_pt.errors import CheckpointError
from vggish_pt.utils.json_file import parse_object

FORMAT_VERSION = 1
MAX_FC_WIDTH = 1 << 16


@dataclass(frozen=True)
class VGGishConfig:
    """Configuration of a VGGish model.

    Attributes:
        final_relu: False for the pre-activation embedding (Google's code since 2020, the default); True for a ReLU
            after the last layer (torchvggish, and Google's code before 2020).
        fc_width: width of the fully connected layers fc1 and fc2; 4096 in Google's model.
        name: name of the weights, for records.
        license: SPDX expression of the weights' licence, or "unknown".
        source: origin of the weights: file names, digests, the program that made them. Any keys, JSON types.

    Raises:
        CheckpointError: a value of another type or outside its range.
    """

    final_relu: bool = False
    fc_width: int = 4096
    name: str = "unnamed"
    license: str = "unknown"
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.final_relu, bool):
            raise CheckpointError(f"config: final_relu must be true or false, not {self.final_relu!r}")
        if isinstance(self.fc_width, bool) or not isinstance(self.fc_width, int):
            raise CheckpointError(f"config: fc_width must be a whole number, not {self.fc_width!r}")
        if not 1 <= self.fc_width <= MAX_FC_WIDTH:
            raise CheckpointError(f"config: fc_width must be from 1 to {MAX_FC_WIDTH}, not {self.fc_width}")
        for key in ("name", "license"):
            if not isinstance(getattr(self, key), str):
                raise CheckpointError(f"config: {key} must be a string, not {getattr(self, key)!r}")
        if not isinstance(self.source, dict):
            raise CheckpointError(f"config: source must be an object, not {self.source!r}")

    def to_json(self) -> str:
        """Return the text of ``config.json``."""
        document = {"model_type": "vggish", "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, origin: str = "config.json") -> VGGishConfig:
        """Read the text of a ``config.json``. Unknown keys are ignored.

        Args:
            text: the file's contents.
            origin: name of the file in errors.

        Raises:
            CheckpointError: the text is not a VGGish configuration, or has a newer format.
        """
        document = parse_object(text, origin=origin)
        if document.get("model_type") != "vggish":
            raise CheckpointError(f'{origin}: not a VGGish model (its "model_type" is not "vggish")')
        check_format_version(document, FORMAT_VERSION, origin)
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in document.items() if key in known})
        except CheckpointError as error:
            raise CheckpointError(f"{origin}: {error}") from None


def check_format_version(document: dict[str, Any], newest: int, origin: str) -> None:
    """Check that this package can read the format of a saved configuration.

    Args:
        document: the configuration.
        newest: newest format that can be read.
        origin: name of the file in errors.

    Raises:
        CheckpointError: the format is newer, or not given.
    """
    version = document.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise CheckpointError(f'{origin}: "format_version" must be a positive whole number, not {version!r}')
    if version > newest:
        raise CheckpointError(
            f"{origin}: written by a newer vggish_pt (format {version}, this one reads up to {newest}); "
            "upgrade with: pip install --upgrade vggish_pt"
        )
