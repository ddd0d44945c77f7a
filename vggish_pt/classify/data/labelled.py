"""Labelled sounds: a folder with a sub-folder for each class, or a manifest → examples.

A clip has one label, or, with a column ``labels``, any number from one. What else is known of it decides how data may
be divided: clips of one ``group`` (a speaker, a place, a recording) belong together, a ``fold`` says where a clip goes
in cross-validation, a ``split`` whether it is for training, validation or test.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Search, Spelling
from vggish_pt.dataset.inputs.manifest import Manifest, is_manifest
from vggish_pt.dataset.inputs.rows import BadRow, Row
from vggish_pt.errors import SettingsError
from vggish_pt.utils.remote import RemoteFile, is_address, redacted, resolve_beside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SplitName = Literal["train", "validation", "test"]
SEPARATOR = ";"
"""Between the labels of a clip."""

_SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_MAX_LABELS = 1 << 16
_SHOWN = 5  # how many inputs an error names


@dataclass(frozen=True)
class Example:
    """A sound and what is known of it.

    Attributes:
        item: the file, or the part of one.
        labels: names of its classes, sorted; exactly one unless the set is multi-label.
        fold: its part in cross-validation.
        group: what it shares with clips that must not be on the other side of a split.
        split: "train", "validation" or "test".
    """

    item: Clip
    labels: tuple[str, ...]
    fold: str | None = None
    group: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Labelled sounds.

    Attributes:
        examples: in the order of the manifest, or of classes and file names.
        labels: names of the classes, sorted.
        multilabel: whether a clip may have several labels.
        name: how errors call it.
        passed_over: how many files of a folder were left out because their ending is not one of audio.
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
        """The sounds alone."""
        return [example.item for example in self.examples]

    def targets(self) -> NDArray[np.int64]:
        """Which classes each clip has: (n, classes), 0 or 1."""
        import numpy as np

        places = {label: place for place, label in enumerate(self.labels)}
        found = np.zeros((len(self.examples), len(self.labels)), dtype=np.int64)
        for row, example in enumerate(self.examples):
            found[row, [places[label] for label in example.labels]] = 1
        return found

    def counts(self) -> Counter[str]:
        """How many clips each class has."""
        return Counter(label for example in self.examples for label in example.labels)

    def groups(self) -> list[str] | None:
        """For each clip, what must stay on one side of a split: its group; else, of parts of files, the file.

        None if each clip stands alone.
        """
        if self.examples and self.examples[0].group is not None:
            return [str(example.group) for example in self.examples]
        spelling = Spelling()
        files = ["/".join(_file(example.item, spelling)) for example in self.examples]
        return files if len(set(files)) < len(files) else None

    def without(self, places: Collection[int]) -> LabelledSet:
        """The set less some of its clips; classes stay, even one that has no clip left."""
        left_out = set(places)
        kept = tuple(example for place, example in enumerate(self.examples) if place not in left_out)
        return replace(self, examples=kept)

    def select(self, places: Iterable[int]) -> LabelledSet:
        """The set of some of its clips, in that order."""
        return replace(self, examples=tuple(self.examples[place] for place in places))


def read_labelled(path: str | os.PathLike[str], *, fold_from: str | None = None) -> LabelledSet:
    """Reads which sounds there are, and their labels; the sounds themselves are not opened.

    Args:
        path: a folder with a sub-folder of audio files for each class; or a manifest (CSV, TSV, JSON lines, Parquet;
            a path or an address) with columns ``path`` (relative to the manifest's folder) and ``label``, or
            ``labels`` separated by ``;``; optionally ``fold``, ``group``, ``split`` (train, validation, test), and
            ``start`` and ``end``, seconds in the file. Other columns stay with the items.
        fold_from: a regular expression that finds the fold in a file's name: its first group, or all that it matches.
            ``^(\\d)-`` takes ESC-10's and ESC-50's folds.

    Raises:
        SettingsError: data that cannot be used; the message says what to do.
        AudioError: a manifest that cannot be opened.
    """
    name = os.fspath(path)
    if not is_address(name) and os.path.isdir(name):  # noqa: PTH112 (takes any string)
        found = _read_folder(name)
    elif is_manifest(name):
        found = _read_manifest(name)
    elif not is_address(name) and not os.path.lexists(name):
        raise SettingsError(f"{display_name(name)}: no such folder or manifest")
    else:
        raise SettingsError(
            f"{display_name(redacted(name))}: neither a local folder with a sub-folder for each class nor a manifest "
            "(.csv, .tsv, .jsonl, .ndjson, .parquet)"
        )
    if fold_from is not None:
        found = _with_folds(found, fold_from)
    _check_once(found)
    _check_groups(found)
    return found


def check_learnable(data: LabelledSet) -> None:
    """Finds out what prevents any classifier from learning and being tested on a set.

    Raises:
        SettingsError: no clips, one class only, a class of one clip, or a class that every clip has.
    """
    counts = data.counts()
    if not data.examples:
        raise SettingsError(f"{data.name}: no clips are left")
    if len(data.labels) < 2:
        raise SettingsError(
            f"{data.name}: there is one class only ({data.labels[0]}); a classifier needs sounds of two at least"
        )
    if few := [label for label in data.labels if counts[label] < 2]:
        raise SettingsError(
            f"{data.name}: {_list(few)} {_have(few)} fewer than two clips, and one is needed to learn from and one to "
            "test with; add some, or leave the class out"
        )
    if everywhere := [label for label in data.labels if counts[label] == len(data)]:
        raise SettingsError(
            f"{data.name}: every clip has the label {everywhere[0]!r}, so nothing can be learned of it; add clips "
            "without it, or leave the label out"
        )


def _read_folder(name: str) -> LabelledSet:
    label = display_name(name)
    try:
        with os.scandir(name) as entries:
            visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise SettingsError(f"{label}: the folder cannot be read ({error.strerror})") from None
    folders = [entry for entry in visible if entry.is_dir()]
    loose = [
        entry.name for entry in visible if not entry.is_dir() and Path(entry.name).suffix.lower() in AUDIO_SUFFIXES
    ]
    if not folders:
        raise SettingsError(f"{label}: no sub-folders; put the sounds of each class into one, or write a manifest")
    if loose:
        raise SettingsError(
            f"{label}: {len(loose)} audio files are in no class, the first is {display_name(loose[0])}; move them into "
            "the sub-folder of their class, or elsewhere"
        )
    examples: list[Example] = []
    failures: list[str] = []
    passed_over = len(visible) - len(folders)
    for folder in folders:
        paths: list[str] = []
        search = Search(paths.append, lambda _, error: failures.append(str(error)))
        search.add(folder.path)
        passed_over += search.skipped
        labels = (path_text(folder.name),)
        examples += [Example(Clip(path, len(examples) + place), labels) for place, path in enumerate(paths)]
    if failures:
        raise SettingsError(
            f"{failures[0]}{f' (and {len(failures) - 1} like it)' if failures[1:] else ''}; every sub-folder stands "
            "for a class: put its sounds there, or take the folder away"
        )
    return LabelledSet(tuple(examples), sorted({e.labels[0] for e in examples}), False, label, passed_over)


def _read_manifest(name: str) -> LabelledSet:
    examples: list[Example] = []
    lines: list[int] = []
    bad: list[str] = []
    columns: set[str] = set()
    with Manifest(name) as manifest:
        label = manifest.name
        if manifest.schema is not None:
            columns.update(manifest.schema.names)
            _check_columns(label, columns)
        for row in manifest.rows():
            if isinstance(row, BadRow):
                bad.append(f"line {row.line}: {row.reason}")
                continue
            columns.update(row.columns)
            try:
                examples.append(_example(name, row, len(examples), multilabel="labels" in columns))
                lines.append(row.line)
            except ValueError as error:
                bad.append(f"line {row.line}: {error}")
    if examples or bad:
        _check_columns(label, columns)
    if bad:
        raise SettingsError(f"{label}: {len(bad)} rows cannot be used: {_listed(bad)}; correct them or take them out")
    if not examples:
        raise SettingsError(f"{label}: the manifest has no rows")
    for column in ("fold", "group", "split"):
        gaps = [line for line, example in zip(lines, examples, strict=True) if getattr(example, column) is None]
        if gaps and len(gaps) < len(examples):
            raise SettingsError(
                f"{label}: column {column!r} is empty in {len(gaps)} of {len(examples)} rows, the first is line "
                f"{gaps[0]}; fill it in everywhere, or take the column out"
            )
    labels = sorted({one for example in examples for one in example.labels})
    if len(labels) > _MAX_LABELS:
        raise SettingsError(f"{label}: {len(labels)} different labels; is the column really one of labels?")
    return LabelledSet(tuple(examples), labels, "labels" in columns, label)


def _check_columns(name: str, columns: Collection[str]) -> None:
    if "label" in columns and "labels" in columns:
        raise SettingsError(
            f"{name}: it has both a column 'label' (one class) and 'labels' (any number, separated by ';'); keep one"
        )
    if "label" not in columns and "labels" not in columns:
        raise SettingsError(f"{name}: it needs a column 'label', or 'labels' with several separated by ';'")


def _example(manifest: str, row: Row, index: int, *, multilabel: bool) -> Example:
    values = dict(row.columns)
    labels = _labels(values.pop("labels", None), several=True) if multilabel else _labels(values.pop("label", None))
    fold, group, split = (_text(values.pop(column, None)) for column in ("fold", "group", "split"))
    if split is not None and split.lower() not in _SPLITS:
        raise ValueError(f"split {split!r:.40} is none of train, validation, test")
    where = resolve_beside(manifest, row.path)
    item = Clip(
        redacted(row.path) if is_address(row.path) else row.path,
        index,
        RemoteFile(where) if is_address(where) else where,
        row.start,
        row.end,
        values,
    )
    return Example(item, labels, fold, group, None if split is None else _SPLITS[split.lower()])


def _labels(value: Any, *, several: bool = False) -> tuple[str, ...]:
    if several:
        parts = value if isinstance(value, list | tuple) else (_text(value) or "").split(SEPARATOR)
    else:
        parts = [value]
    labels = sorted({text for part in parts if (text := _text(part)) is not None})
    if not labels:
        raise ValueError("it has no label")
    if any(not label.isprintable() for label in labels):
        raise ValueError("a label has control characters")
    return tuple(labels)


def _text(value: Any) -> str | None:
    """A cell as text; None if it is empty. Whole numbers that came as 1.0 are 1, as tables with gaps store them."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, Mapping | list | tuple | bytes):
        raise ValueError(f"{value!r:.40} is no single value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _with_folds(data: LabelledSet, pattern: str) -> LabelledSet:
    try:
        find: Callable[[str], re.Match[str] | None] = re.compile(pattern).search
    except re.error as error:
        raise SettingsError(f"fold_from {pattern!r} is no regular expression ({error})") from None
    if data.examples and data.examples[0].fold is not None:
        raise SettingsError(f"{data.name}: folds are given in a column and by fold_from {pattern!r}; give one of them")
    examples, missing = [], []
    for example in data.examples:
        name = example.item.path.replace("\\", "/").rpartition("/")[2]
        match = find(name)
        fold = (match[1] if match.re.groups else match[0]) if match else None
        if not fold:
            missing.append(display_name(name))
        examples.append(replace(example, fold=fold))
    if missing:
        raise SettingsError(
            f"{data.name}: fold_from {pattern!r} finds no fold in {len(missing)} of {len(examples)} file names: "
            f"{_listed(missing, ', ')}"
        )
    return replace(data, examples=tuple(examples))


def _file(item: Clip, spelling: Spelling) -> tuple[str, ...]:
    """What two items of one file have in common, however it is spelled."""
    source = item.audio_source
    if isinstance(source, RemoteFile):
        return (source.address,)
    return spelling.identity(source) if isinstance(source, str) else (item.path,)


def _check_once(data: LabelledSet) -> None:
    """A clip that is there twice would be learned from and tested with."""
    spelling, seen = Spelling(), dict[Any, Example]()
    for example in data.examples:
        item = example.item
        identity = (_file(item, spelling), item.start, item.end)
        if (other := seen.setdefault(identity, example)) is not example:
            advice = "keep one row" if data.multilabel or other.labels == example.labels else "it can have one label"
            raise SettingsError(
                f"{data.name}: {display_name(item.path)} is there twice, as {SEPARATOR.join(other.labels)} and as "
                f"{SEPARATOR.join(example.labels)}; {advice} (several labels of a clip go into a column 'labels', "
                f"separated by {SEPARATOR!r})"
            )


def _check_groups(data: LabelledSet) -> None:
    for column in ("fold", "split"):
        seen: dict[str, str] = {}
        for example in data.examples:
            place = getattr(example, column)
            if example.group is None or place is None:
                continue
            if (other := seen.setdefault(example.group, place)) != place:
                raise SettingsError(
                    f"{data.name}: group {example.group!r} is in {column} {other!r} and in {column} {place!r}, and "
                    f"clips of one group belong on one side; correct the column {column!r} or 'group'"
                )


def _list(names: Sequence[str]) -> str:
    return _listed([f"class {name!r}" for name in names], ", ")


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _listed(parts: Sequence[str], between: str = "; ") -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return between.join(parts[:_SHOWN]) + more
