"""Weights by name: a name, folder or Hub repository → a model folder on this machine.

The names are in ``weights/registry.toml``. Nothing here imports torch; only a download touches the network.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache as memoized
from pathlib import Path
from typing import Any

from vggish_pt.errors import WeightsError
from vggish_pt.pretrained.download import Download
from vggish_pt.pretrained.entries import Entry, Smoke

REGISTRY_NAME = "registry.toml"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def weights_root() -> Path:
    """The ``weights/`` folder: inside the package in a wheel, beside it in a checkout or editable install.

    Raises:
        WeightsError: there is none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / REGISTRY_NAME).is_file():
            return folder
    raise WeightsError(f"{package}: the installation lacks weights/{REGISTRY_NAME}; install vggish_pt again")


@memoized
def entries() -> Mapping[str, Entry]:
    """Everything that has a name.

    Raises:
        WeightsError: the registry is missing or damaged.
    """
    return read_registry(weights_root() / REGISTRY_NAME)


def read_registry(path: Path) -> dict[str, Entry]:
    """Reads a registry file.

    Raises:
        WeightsError: it cannot be read, or an entry is not as it should be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _entry(name, table) for name, table in document.items()}
    except (OSError, ValueError, TypeError, WeightsError) as error:
        raise WeightsError(f"{path}: not a registry of weights ({error}); install vggish_pt again") from None


def _entry(name: str, table: Any) -> Entry:
    if not isinstance(table, dict) or (unknown := table.keys() - {f.name for f in fields(Entry)}):
        raise WeightsError(f"{name}: not a table" if not isinstance(table, dict) else f"{name}: unknown {unknown}")
    converted = dict(table)
    for role in ("checkpoint", "pca"):
        converted[role] = tuple(Download(**place) for place in table.get(role, ()))
    if "smoke" in table:
        converted["smoke"] = Smoke(**table["smoke"])
    return Entry(name=name, **converted)


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    progress: bool | None = None,
    registry: Mapping[str, Entry] | None = None,
) -> Path:
    """Finds weights, and downloads them if they are not on this machine yet.

    Args:
        name_or_path: a name of the registry; else a model folder that exists; else a Hub repository
            "user/name". A ``Path`` is always a folder.
        revision: branch, tag or commit of a Hub repository.
        token: access token for a Hub repository; None uses the one that ``hf auth login`` stored.
        cache_dir: where downloads are kept; None for the user's cache folder (or ``VGGISH_PT_CACHE``; of Hub
            repositories, that of huggingface_hub).
        local_files_only: True never touches the network.
        progress: whether to show progress bars on stderr; None: if it is a terminal.
        registry: name → entry; None for the package's own.

    Returns:
        A folder with ``config.json`` and ``model.safetensors``.

    Raises:
        WeightsError: no such weights, or they are not what they should be.
        DownloadError: they are not on this machine and cannot be downloaded; the message names the ways out.
        OutputError: the cache cannot be written.
    """
    known = entries() if registry is None else registry
    if isinstance(name_or_path, str) and name_or_path in known:
        if revision is not None:
            raise WeightsError(f"{name_or_path}: weights of the registry have no revisions; leave revision out")
        return _named(known[name_or_path], cache_dir=cache_dir, local_files_only=local_files_only, progress=progress)
    text = os.fspath(name_or_path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise WeightsError(f"{text!r} names no weights; {_possible(known)}")
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(
            f"{text}: is a file, not a model folder; make one of a checkpoint with: "
            f"vggish-pt convert {text} --out FOLDER"
        )
    if isinstance(name_or_path, str) and is_repository(text):
        from vggish_pt.pretrained import hub

        return hub.fetch(text, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    if isinstance(name_or_path, str) and not any(mark in text for mark in "/\\~"):
        close = difflib.get_close_matches(text.lower(), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise WeightsError(f"{text!r} names no weights; {hint}{_possible(known)}")
    raise WeightsError(f"{text}: no such model folder; {_possible(known)}")


def is_repository(text: str) -> bool:
    """Whether a text has the form of a Hub repository, "user/name"."""
    return _REPOSITORY.fullmatch(text) is not None


def _possible(known: Mapping[str, Entry]) -> str:
    names = ", ".join(map(repr, known))
    return f'weights are one of {names}, a model folder, or a Hub repository "user/name"'


def _named(
    entry: Entry, *, cache_dir: str | os.PathLike[str] | None, local_files_only: bool, progress: bool | None
) -> Path:
    if entry.folder is None:
        from vggish_pt.pretrained import cache

        return cache.obtain(entry, cache_dir=cache_dir, local_files_only=local_files_only, progress=progress)
    folder = weights_root() / entry.folder
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{entry.name}: the installation lacks its files ({folder}); install vggish_pt again")
    return folder
