"""Reading of labelled clips: a folder with a subfolder for each class, or a manifest → examples."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggish_pt.audio import display_name
from vggish_pt.audio.clip import Clip, path_text
from vggish_pt.classify.data.examples import (
    SEPARATOR,
    Example,
    LabelledSet,
    SplitName,
    file_identity,
    list_some,
)
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Search, Spelling
from vggish_pt.dataset.inputs.manifest import Manifest, is_manifest
from vggish_pt.dataset.inputs.rows import BadRow, Row
from vggish_pt.errors import SettingsError
from vggish_pt.utils.remote import RemoteFile, is_address, redacted, resolve_beside

_SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_MAX_LABELS = 1 << 16


def read_labelled(path: str | os.PathLike[str], *, fold_from: str | None = None) -> LabelledSet:
    """Read a list of labelled clips, without opening their audio.

    Args:
        path: a folder with a subfolder of audio files for each class; or a manifest (CSV, TSV, JSON lines, Parquet;
            a path or an address) with columns ``path`` (relative to the manifest's folder) and ``label``, or
            ``labels`` separated by ``;``; optionally ``fold``, ``group``, ``split`` (train, validation, test), and
            ``start`` and ``end``, seconds in the file. Other columns are stored with the clips.
        fold_from: a regular expression that finds the fold in a file's name: its first group, or the whole match.
            ``^(\\d)-`` finds the folds of ESC-10 and ESC-50.

    Raises:
        SettingsError: the data cannot be used; the message says what to do.
        AudioError: the manifest cannot be opened.
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
        raise SettingsError(f"{label}: no sub-folders; put the clips of each class into one, or write a manifest")
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
            f"{failures[0]}{f' (and {len(failures) - 1} like it)' if failures[1:] else ''}; every sub-folder is "
            "a class: put its clips there, or remove the folder"
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
        raise SettingsError(f"{label}: {len(bad)} rows cannot be used: {list_some(bad)}; correct them or remove them")
    if not examples:
        raise SettingsError(f"{label}: the manifest has no rows")
    for column in ("fold", "group", "split"):
        gaps = [line for line, example in zip(lines, examples, strict=True) if getattr(example, column) is None]
        if gaps and len(gaps) < len(examples):
            raise SettingsError(
                f"{label}: column {column!r} is empty in {len(gaps)} of {len(examples)} rows, the first is line "
                f"{gaps[0]}; fill it in everywhere, or remove the column"
            )
    labels = sorted({one for example in examples for one in example.labels})
    if len(labels) > _MAX_LABELS:
        raise SettingsError(f"{label}: {len(labels)} different labels; check that the column holds labels")
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
    """Return a cell as text, or None if it is empty. A float such as 1.0 is "1": tables with gaps store integers so."""
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
            f"{list_some(missing, ', ')}"
        )
    return replace(data, examples=tuple(examples))


def _check_once(data: LabelledSet) -> None:
    """Check that no clip is listed twice: it could be in both the training and the test part."""
    spelling, seen = Spelling(), dict[Any, Example]()
    for example in data.examples:
        item = example.item
        identity = (file_identity(item, spelling), item.start, item.end)
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
