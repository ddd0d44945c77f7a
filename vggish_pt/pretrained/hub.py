"""Download and upload of model folders in Hugging Face Hub repositories, through huggingface_hub."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.errors import DownloadError, OutputError, WeightsError
from vggish_pt.pretrained.environment import connect_timeout, no_answer, offline_variable
from vggish_pt.pretrained.folder import (
    CARD_NAME,
    CONFIG_NAME,
    PCA_SHAPES,
    WEIGHTS_NAME,
    read_config,
    read_model,
    tensor_shapes,
)
from vggish_pt.utils.text import first_line

if TYPE_CHECKING:
    from vggish_pt.nn.config import VGGishConfig

_READ_SECONDS = 10.0  # for the Hub to answer a request about a repository
_HEADER_BYTES = 1 << 20  # largest header of a safetensors file


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    measure: Callable[[Path], int] | None = None,
) -> Path:
    """Download ``config.json`` and ``model.safetensors`` of a repository, unless the cache has them.

    If the connection fails, the copy in the cache is used.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; None for the main branch.
        token: access token; None uses the stored one.
        cache_dir: the cache; None for that of huggingface_hub (``HF_HOME``).
        local_files_only: True never uses the network.
        measure: returns the largest size in bytes of the tensors that a folder's ``config.json`` describes; None for
            those of a VGGish.

    Returns:
        The model folder.

    Raises:
        WeightsError: no such repository or revision, no access to it, or no VGGish model in it.
        DownloadError: not in the cache, and the download failed.
        OutputError: the cache cannot be written.
    """
    location: dict[str, Any] = {"repo_id": repo_id, "cache_dir": cache_dir}
    if local_files_only or offline_variable():
        reason = "local_files_only is set" if local_files_only else f"{offline_variable()} is set"
    else:
        try:
            with _translated(repo_id, revision):
                return _download(location, revision, token, measure or _model_bytes)
        except _ConnectionFailed as error:
            reason = str(error)
    with _translated(repo_id, revision):
        cached = _cached(location, revision)
    if cached:
        return cached
    raise DownloadError(
        f"{repo_id}: not in the cache, and the download failed ({reason}). "
        f"Ways out: run 'vggish-pt weights download {repo_id}' on a machine with a network, copy the folder "
        f"that 'vggish-pt weights path {repo_id}' prints there, and give it as weights; "
        "or use weights on this machine: another model folder, or 'synthetic'"
    )


def push(
    folder: Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload a model folder, with a model card, as one commit.

    Args:
        folder: a model folder; without a ``README.md`` in it, :func:`model_card` makes one.
        repo_id: "user/name"; created if it does not exist.
        token: access token; None uses the stored one.
        private: whether a new repository is private.
        revision: branch to commit to; None for the main branch.

    Returns:
        Address of the commit.

    Raises:
        WeightsError: no model folder, no access to the repository, or ``VGGISH_PT_OFFLINE`` is set.
        DownloadError: the connection failed, or the Hub refuses the upload.
    """
    config, _ = read_model(folder)
    card = folder / CARD_NAME
    contents: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG_NAME, WEIGHTS_NAME)}
    contents[CARD_NAME] = card if card.is_file() else model_card(config).encode()
    return upload(contents, repo_id, message="Upload VGGish model", token=token, private=private, revision=revision)


def upload(
    contents: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    message: str,
    token: str | bool | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload files as one commit.

    Args:
        contents: files, or contents of files, by their name in the repository.
        repo_id: "user/name"; created if it does not exist.
        message: message of the commit.
        token: access token; None uses the stored one.
        private: whether a new repository is private.
        revision: branch to commit to; None for the main branch.

    Returns:
        Address of the commit.

    Raises:
        WeightsError: no access to the repository, or ``VGGISH_PT_OFFLINE`` is set.
        DownloadError: the connection failed, or the Hub refuses the upload.
    """
    if variable := offline_variable():
        raise WeightsError(f"{repo_id}: cannot push, {variable} is set")
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
    api = HfApi(token=token)
    try:
        with _translated(repo_id, revision, "upload"):
            with contextlib.suppress(errors.RepositoryNotFoundError):
                api.model_info(repo_id, timeout=_timeouts())  # create_repo has no timeout
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except _ConnectionFailed as error:
        raise DownloadError(f"{repo_id}: cannot push, {error}; try again") from None
    return str(commit.commit_url)


def model_card(config: VGGishConfig) -> str:
    """Return a plain model card (``README.md``) for a model folder.

    Args:
        config: the model's configuration.
    """
    output = "after a final ReLU" if config.final_relu else "before any activation (no final ReLU)"
    # A JSON string is a valid YAML string.
    return f"""---
library_name: vggish_pt
license: {json.dumps(config.license.lower())}
tags:
- audio
- audio-embeddings
- vggish
pipeline_tag: feature-extraction
---

# {config.name}

VGGish weights for vggish_pt: 128 numbers for each 0.96 s of audio, from 16 kHz mono audio (other rates and
channels are converted).

```python
from vggish_pt import VGGish

model = VGGish.from_pretrained("user/name")  # this repository, or a folder with its files
result = model.embed("clip.wav")
result.values  # (n, 128)
```

- Output: {output}.
- Width of the fully connected layers: {config.fc_width}.
- Licence: {config.license}.
- Source of the weights: {json.dumps(config.source) if config.source else "not recorded"}.

Files: `config.json` and `model.safetensors`; nothing in them is code.
"""


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _timeouts() -> Any:
    """Return the timeouts to connect and to read, a pair that httpx and requests take."""
    return connect_timeout(), _READ_SECONDS


def _model_bytes(folder: Path) -> int:
    shapes = tensor_shapes(read_config(folder)) | PCA_SHAPES
    return 8 * sum(map(math.prod, shapes.values()))


def _download(
    location: dict[str, Any], revision: str | None, token: str | bool | None, measure: Callable[[Path], int]
) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    repo_id, options = location["repo_id"], {**location, "token": token, "etag_timeout": _timeouts()}
    info = HfApi(token=token).model_info(repo_id, revision=revision, files_metadata=True, timeout=_timeouts())
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if name not in sizes:
            raise WeightsError(f"{repo_id}: holds no VGGish model ({name} is missing)")
    _check_size(repo_id, CONFIG_NAME, sizes, _HEADER_BYTES)
    folder = Path(hf_hub_download(filename=CONFIG_NAME, revision=revision, **options)).parent
    _check_size(repo_id, WEIGHTS_NAME, sizes, _HEADER_BYTES + measure(folder))
    # The folder is named after the commit, so that both files are of the same commit even if the branch moves.
    hf_hub_download(filename=WEIGHTS_NAME, revision=folder.name, **options)
    return folder


def _check_size(repo_id: str, name: str, sizes: dict[str, int | None], limit: int) -> None:
    size = sizes[name]
    if size is not None and size > limit:
        raise WeightsError(f"{repo_id}: its {name} has {size} bytes, more than the {limit} a VGGish model can have")


def _cached(location: dict[str, Any], revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    # hf_hub_download(local_files_only=True) may use the network.
    names = (CONFIG_NAME, WEIGHTS_NAME)
    paths = [try_to_load_from_cache(filename=name, revision=revision, **location) for name in names]
    return Path(paths[0]).parent if all(isinstance(path, str) for path in paths) else None


class _ConnectionFailed(Exception):
    """Failed connection to the Hub; the message is the reason."""

    def __init__(self, error: Exception) -> None:
        reason = no_answer() if type(error).__name__ == "ConnectTimeout" else first_line(error)
        super().__init__(f"{_endpoint()}: {reason}")


@contextlib.contextmanager
def _translated(repo_id: str, revision: str | None, action: str = "download") -> Iterator[None]:
    """Turn errors of huggingface_hub into those of this package."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise WeightsError(
            f"{repo_id}: access is restricted; ask for it on the repository's page, then use 'hf auth login' or token="
        ) from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(
            f"{repo_id}: no such repository on {_endpoint()}, or a private one; check the name, or "
            "'hf auth login' or token= if it is private"
        ) from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{repo_id}: has no branch, tag or commit {revision!r}") from None
    except errors.LocalEntryNotFoundError as error:  # hf_hub_download raises it if the connection failed
        raise _ConnectionFailed(error) from None
    except errors.HFValidationError as error:
        raise WeightsError(f"{repo_id}: no valid repository name ({first_line(error)})") from None
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{repo_id}: holds no VGGish model ({first_line(error)})") from None
    except errors.HfHubHTTPError as error:
        raise DownloadError(f"{repo_id}: the Hub refuses the {action} ({first_line(error)})") from None
    except (WeightsError, OutputError):
        raise
    except OSError as error:
        # Failed connections are OSErrors too in some versions of huggingface_hub, without a file name.
        if error.errno is not None and error.filename is not None:
            raise OutputError(f"{error.filename}: cannot write the download there ({error.strerror})") from None
        raise _ConnectionFailed(error) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise
        raise _ConnectionFailed(error) from None
