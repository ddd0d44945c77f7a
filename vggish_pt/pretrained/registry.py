"""Resolution of weights: a name, folder or Hub repository becomes a model folder on this machine.

The names are in ``weights/registry.toml``. Only a download uses the network, and only a conversion imports torch.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache as memoized
from pathlib import Path
from typing import Any

from vggish_pt.errors import SettingsError, WeightsError
from vggish_pt.pretrained.entries import Download, Entry, Smoke

REGISTRY_NAME = "registry.toml"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def weights_root() -> Path:
    """Return the ``weights/`` folder: inside the package in a wheel, next to it in a checkout or editable install.

    Raises:
        WeightsError: the folder is missing.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / REGISTRY_NAME).is_file():
            return folder
    raise WeightsError(f"{package}: the installation lacks weights/{REGISTRY_NAME}; install vggish_pt again")


@memoized
def entries() -> Mapping[str, Entry]:
    """Return the entries of the package's registry, by name.

    Raises:
        WeightsError: the registry is missing or damaged.
    """
    return read_registry(weights_root() / REGISTRY_NAME)


def read_registry(path: Path) -> dict[str, Entry]:
    """Read a registry file.

    Raises:
        WeightsError: the file cannot be read, or an entry is invalid, for example with a partial digest.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _entry(name, table) for name, table in document.items()}
    except (OSError, ValueError, TypeError, WeightsError) as error:
        raise WeightsError(f"{path}: no valid registry of weights ({error}); install vggish_pt again") from None


def _entry(name: str, table: Any) -> Entry:
    if not isinstance(table, dict) or (unknown := table.keys() - {f.name for f in fields(Entry)}):
        raise WeightsError(f"{name}: not a table" if not isinstance(table, dict) else f"{name}: unknown {unknown}")
    converted = dict(table)
    for role in ("checkpoint", "pca"):
        converted[role] = tuple(Download(**source) for source in table.get(role, ()))
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
    mirror_sha256: Sequence[str] = (),
    progress: bool | None = None,
    registry: Mapping[str, Entry] | None = None,
) -> Path:
    """Return the model folder of weights; download them if they are not on this machine yet.

    Args:
        name_or_path: a name of the registry, an existing model folder, or a Hub repository "user/name", looked up in
            this order. A ``Path`` is always a folder.
        revision: branch, tag or commit of a Hub repository.
        token: access token for a Hub repository; None uses the one that ``hf auth login`` stored.
        cache_dir: folder of downloads; None for ``VGGISH_PT_CACHE`` or the user's cache folder, and for Hub
            repositories that of huggingface_hub.
        local_files_only: True never uses the network.
        mirror_sha256: SHA-256 digests of files whose full digest the registry lacks
            (:func:`vggish_pt.pretrained.cache.obtain`).
        progress: whether to show progress bars on stderr; None: if it is a terminal.
        registry: entries by name; None for the package's own.

    Returns:
        A folder with ``config.json`` and ``model.safetensors``.

    Raises:
        WeightsError: no such weights, or weights that differ from the registry.
        DownloadError: not on this machine, and the download failed; the message says what to do.
        SettingsError: ``mirror_sha256`` is no SHA-256 that a file needs.
        OutputError: the cache cannot be written.
    """
    known = entries() if registry is None else registry
    entry = known.get(name_or_path) if isinstance(name_or_path, str) else None
    if mirror_sha256 and (entry is None or entry.folder is not None):
        raise SettingsError(f"{name_or_path}: mirror_sha256 is only for weights of the registry that are downloaded")
    if entry is not None:
        if revision is not None:
            raise WeightsError(f"{name_or_path}: weights of the registry have no revisions; leave revision out")
        if entry.folder is not None:
            return _shipped(entry)
        from vggish_pt.pretrained import cache

        return cache.obtain(
            entry,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            mirror_sha256=mirror_sha256,
            progress=progress,
        )
    text = os.fspath(name_or_path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise WeightsError(f"{text!r} names no weights; {_possible(known)}")
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(
            f"{text}: is a file, not a model folder; convert a checkpoint with: vggish-pt convert {text} --out FOLDER"
        )
    if isinstance(name_or_path, str) and is_repository(text):
        from vggish_pt.pretrained import hub

        return hub.fetch(text, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    if isinstance(name_or_path, str) and not any(mark in text for mark in "/\\~"):
        raise WeightsError(f"{text!r} names no weights; {_hint(text, known)}{_possible(known)}")
    raise WeightsError(f"{text}: no such model folder; {_possible(known)}")


def is_repository(text: str) -> bool:
    """Return True if a text has the form of a Hub repository, "user/name"."""
    return _REPOSITORY.fullmatch(text) is not None


def _hint(text: str, known: Mapping[str, Entry]) -> str:
    close = difflib.get_close_matches(text.lower(), known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _possible(known: Mapping[str, Entry]) -> str:
    names = ", ".join(map(repr, known))
    return f'weights are one of {names}, a model folder, or a Hub repository "user/name"'


def _shipped(entry: Entry) -> Path:
    folder = weights_root() / str(entry.folder)
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{entry.name}: the installation lacks its files ({folder}); install vggish_pt again")
    return folder
