"""Labelled clips: an example is a clip and its labels, and a labelled set holds examples and the names of the classes.

A clip has one label, or any number of labels in a multi-label set. Its group, fold and split decide how the set may be
divided: clips of one group (a speaker, a place, a recording) belong together, a fold is a part in cross-validation, and
a split is "train", "validation" or "test".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.inputs.files import Spelling
from vggish_pt.errors import SettingsError
from vggish_pt.utils.remote import RemoteFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SplitName = Literal["train", "validation", "test"]
SEPARATOR = ";"
"""Separator of the labels of a clip in one text."""

_MAX_LISTED = 5  # names in an error


@dataclass(frozen=True)
class Example:
    """A clip and its labels.

    Attributes:
        item: file of the clip, or a segment of one.
        labels: names of the clip's classes, sorted; exactly one unless the set is multi-label.
        fold: fold of the clip in cross-validation.
        group: group of clips that must stay in one part of a split.
        split: "train", "validation" or "test".
    """

    item: Clip
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Labelled clips.

    Attributes:
        examples: clips in the order of the manifest, or of classes and file names.
        labels: names of the classes, sorted.
        multilabel: True if a clip may have several labels.
        name: name of the set for errors.
        passed_over: number of files in a folder that were skipped because they have no suffix of audio.
    """

    examples: tuple[Example, ...]
    labels: list[str]
    multilabel: bool
    name: str = "data"
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def items(self) -> list[Clip]:
        """Return the clips without their labels."""
        return [example.item for example in self.examples]

    def targets(self) -> NDArray[np.int64]:
        """Return (n, classes): 1 for the classes of each clip, otherwise 0."""
        import numpy as np

        columns = {label: column for column, label in enumerate(self.labels)}
        targets = np.zeros((len(self.examples), len(self.labels)), dtype=np.int64)
        for row, example in enumerate(self.examples):
            targets[row, [columns[label] for label in example.labels]] = 1
        return targets

    def counts(self) -> Counter[str]:
        """Return the number of clips of each class."""
        return Counter(label for example in self.examples for label in example.labels)

    def groups(self) -> list[str] | None:
        """Return the group of each clip, or its file if several clips are segments of one file.

        Clips of one group must stay in one part of a split. Return None if there are no groups.
        """
        if self.examples and self.examples[0].group is not None:
            return [str(example.group) for example in self.examples]
        spelling = Spelling()
        files = ["/".join(file_identity(example.item, spelling)) for example in self.examples]
        return files if len(set(files)) < len(files) else None

    def without(self, places: Collection[int]) -> LabelledSet:
        """Return the set without the clips at these indices; all classes stay, also one without clips."""
        removed = set(places)
        examples = tuple(example for index, example in enumerate(self.examples) if index not in removed)
        return replace(self, examples=examples)

    def select(self, places: Iterable[int]) -> LabelledSet:
        """Return the set of the clips at these indices, in this order."""
        return replace(self, examples=tuple(self.examples[index] for index in places))


def check_learnable(data: LabelledSet) -> None:
    """Check that a classifier can be trained and tested on a set.

    Raises:
        SettingsError: no clips, only one class, a class of one clip, or a class that every clip has.
    """
    counts = data.counts()
    if not data.examples:
        raise SettingsError(f"{data.name}: no clips are left")
    if len(data.labels) < 2:
        raise SettingsError(f"{data.name}: there is one class only ({data.labels[0]}); a classifier needs at least two")
    if few := [label for label in data.labels if counts[label] < 2]:
        raise SettingsError(
            f"{data.name}: {_list(few)} {_have(few)} fewer than two clips, but one is needed for training and one for "
            "testing; add clips, or leave the class out"
        )
    if everywhere := [label for label in data.labels if counts[label] == len(data)]:
        raise SettingsError(
            f"{data.name}: every clip has the label {everywhere[0]!r}, so nothing can be learned about it; add clips "
            "without it, or leave the label out"
        )


def file_identity(item: Clip, spelling: Spelling) -> tuple[str, ...]:
    """Return the same identity for all clips of one file, in any spelling of its path."""
    source = item.audio_source
    if isinstance(source, RemoteFile):
        return (source.address,)
    return spelling.identity(source) if isinstance(source, str) else (item.path,)


def _list(names: Sequence[str]) -> str:
    return list_some([f"class {name!r}" for name in names], ", ")


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def list_some(parts: Sequence[str], between: str = "; ") -> str:
    """Return the first of some texts, joined, and the number of the others."""
    more = f" and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
    return between.join(parts[:_MAX_LISTED]) + more
