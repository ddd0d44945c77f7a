"""Classifiers in local folders and Hugging Face Hub repositories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vggish_pt.classify.folder import LABELS_NAME, classifier_card, max_bytes, read_classifier
from vggish_pt.errors import WeightsError
from vggish_pt.pretrained import hub, registry
from vggish_pt.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME


def resolve(name_or_path: str | os.PathLike[str], **place: Any) -> Path:
    """Return a classifier's folder, downloading it from the Hub if necessary.

    Args:
        name_or_path: a run folder, or a Hub repository "user/name". A ``Path`` is always a folder.
        place: ``revision``, ``token``, ``cache_dir`` and ``local_files_only`` of a Hub repository.

    Raises:
        WeightsError: the folder or repository does not exist, or holds no classifier.
        DownloadError: the download failed.
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
        return hub.fetch(text, measure=max_bytes, **place)
    raise WeightsError(f"{text}: no such run folder; 'vggish-pt train DATA --out RUN' makes one")


def push(folder: Path, repo_id: str, *, token: str | bool | None = None, private: bool = False) -> str:
    """Upload a classifier's files as one commit and return the commit's address.

    Raises:
        WeightsError: the folder holds no classifier, or the Hub refuses the upload.
        DownloadError: the Hub cannot be reached.
    """
    config, _ = read_classifier(folder)
    names = (CONFIG_NAME, WEIGHTS_NAME, LABELS_NAME)
    contents: dict[str, Path | bytes] = {name: folder / name for name in names if (folder / name).is_file()}
    card = folder / CARD_NAME
    contents[CARD_NAME] = card if card.is_file() else classifier_card(config).encode()
    return hub.upload(contents, repo_id, message="Upload VGGish classifier", token=token, private=private)
