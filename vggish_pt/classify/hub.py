"""Classifiers in Hugging Face Hub repositories, and on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vggish_pt.classify import folder as store
from vggish_pt.errors import WeightsError
from vggish_pt.pretrained import hub, registry
from vggish_pt.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME


def resolve(name_or_path: str | os.PathLike[str], **place: Any) -> Path:
    """Finds a classifier's folder; downloads it from the Hub if it is not on this machine.

    Args:
        name_or_path: a run folder, or a Hub repository "user/name". A ``Path`` is always a folder.
        place: ``revision``, ``token``, ``cache_dir`` and ``local_files_only`` of a Hub repository.

    Raises:
        WeightsError: no such folder or repository, or no classifier in it.
        DownloadError: it cannot be downloaded.
    """
    text = os.fspath(name_or_path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise WeightsError(f"{text!r} names no classifier; give a run folder or a Hub repository 'user/name'")
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(f"{text}: is a file; give the run folder that 'vggish-pt train' made")
    if isinstance(name_or_path, str) and registry.is_repository(text):
        return hub.fetch(text, measure=store.max_bytes, **place)
    raise WeightsError(f"{text}: no such run folder; 'vggish-pt train DATA --out RUN' makes one")


def push(folder: Path, repo_id: str, *, token: str | bool | None = None, private: bool = False) -> str:
    """Uploads a classifier's files as one commit; returns the commit's address.

    Raises:
        WeightsError: no classifier in the folder, or the Hub refuses.
        DownloadError: the Hub cannot be reached.
    """
    config, _ = store.read_classifier(folder)
    names = (CONFIG_NAME, WEIGHTS_NAME, store.LABELS_NAME)
    contents: dict[str, Path | bytes] = {name: folder / name for name in names if (folder / name).is_file()}
    card = folder / CARD_NAME
    contents[CARD_NAME] = card if card.is_file() else store.classifier_card(config).encode()
    return hub.upload(contents, repo_id, message="Upload VGGish classifier", token=token, private=private)
