"""Model folders in Hugging Face Hub repositories, through huggingface_hub."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggish_pt.errors import DownloadError, OutputError, WeightsError
from vggish_pt.pretrained import connectivity as reach

if TYPE_CHECKING:
    from vggish_pt.nn.config import VGGishConfig

_TIMEOUT = 10.0  # seconds for the Hub to say what a repository holds
_HEADER_BYTES = 1 << 20  # room for the header of a safetensors file


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    measure: Callable[[Path], int] | None = None,
) -> Path:
    """Downloads ``config.json`` and ``model.safetensors`` of a repository, unless the cache has them.

    Where the Hub cannot be reached, the cache's copy is used if there is one.

    Args:
        repo_id: "user/name".
        revision: branch, tag or commit; None for the main branch.
        token: access token; None uses the stored one.
        cache_dir: the cache; None for that of huggingface_hub (``HF_HOME``).
        local_files_only: True never touches the network.
        measure: how many bytes the tensors can have that a folder's ``config.json`` describes; None for a VGGish's.

    Returns:
        The model folder.

    Raises:
        WeightsError: no such repository or revision, no access to it, or no VGGish model in it.
        DownloadError: not in the cache, and the Hub cannot be reached.
        OutputError: the cache cannot be written.
    """
    place: dict[str, Any] = {"repo_id": repo_id, "cache_dir": cache_dir}
    if local_files_only or reach.offline_variable():
        why = "local_files_only is set" if local_files_only else f"{reach.offline_variable()} is set"
    elif lost := reach.unreachable([_endpoint()]):
        why = f"{_endpoint()}: {lost[_endpoint()]}"
    else:
        with _translated(repo_id, revision):
            return _download(place, revision, token, measure or _model_bytes)
    with _translated(repo_id, revision):
        cached = _cached(place, revision)
    if cached:
        return cached
    raise DownloadError(
        f"{repo_id}: not in the cache, and not to be had from the Hub ({why}). "
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
    """Uploads a model folder, with a model card, as one commit.

    Args:
        folder: a model folder; without a ``README.md`` in it, :func:`model_card` makes one.
        repo_id: "user/name"; made if it does not exist.
        token: access token; None uses the stored one.
        private: whether a new repository is private.
        revision: branch to commit to; None for the main branch.

    Returns:
        The commit's address.

    Raises:
        WeightsError: no model folder, or the Hub refuses.
        DownloadError: the Hub cannot be reached.
    """
    from vggish_pt.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_model

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
    """Uploads files as one commit.

    Args:
        contents: name in the repository → file, or what is to be in it.
        repo_id: "user/name"; made if it does not exist.
        message: of the commit.
        token: access token; None uses the stored one.
        private: whether a new repository is private.
        revision: branch to commit to; None for the main branch.

    Returns:
        The commit's address.

    Raises:
        WeightsError: the Hub refuses.
        DownloadError: the Hub cannot be reached.
    """
    if variable := reach.offline_variable():
        raise WeightsError(f"{repo_id}: cannot push, {variable} is set")
    if lost := reach.unreachable([_endpoint()]):
        raise DownloadError(f"{repo_id}: cannot push, {_endpoint()}: {lost[_endpoint()]}")
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
    api = HfApi(token=token)
    with _translated(repo_id, revision, "upload"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    return str(commit.commit_url)


def model_card(config: VGGishConfig) -> str:
    """A plain model card (``README.md``) for a model folder.

    Args:
        config: the model's configuration.
    """
    output = "after a final ReLU" if config.final_relu else "before any activation (no final ReLU)"
    # JSON strings are YAML strings, whatever is in them.
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

VGGish weights for vggish_pt: 128 numbers for each 0.96 s of sound, from 16 kHz mono audio (other rates and
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


def _model_bytes(folder: Path) -> int:
    from vggish_pt.pretrained import folder as storage

    shapes = storage.tensor_shapes(storage.read_config(folder)) | storage.PCA_SHAPES
    return 8 * sum(map(math.prod, shapes.values()))


def _download(
    place: dict[str, Any], revision: str | None, token: str | bool | None, measure: Callable[[Path], int]
) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    from vggish_pt.pretrained import folder as storage

    info = HfApi(token=token).model_info(place["repo_id"], revision=revision, files_metadata=True, timeout=_TIMEOUT)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    for name in (storage.CONFIG_NAME, storage.WEIGHTS_NAME):
        if name not in sizes:
            raise WeightsError(f"{place['repo_id']}: holds no VGGish model ({name} is missing)")
    _check_size(place, storage.CONFIG_NAME, sizes, _HEADER_BYTES)
    folder = Path(hf_hub_download(filename=storage.CONFIG_NAME, revision=revision, token=token, **place)).parent
    _check_size(place, storage.WEIGHTS_NAME, sizes, _HEADER_BYTES + measure(folder))
    # The folder is named after the commit: both files are of the same one, whatever happens to the branch.
    hf_hub_download(filename=storage.WEIGHTS_NAME, revision=folder.name, token=token, **place)
    return folder


def _check_size(place: dict[str, Any], name: str, sizes: dict[str, int | None], limit: int) -> None:
    size = sizes[name]
    if size is not None and size > limit:
        raise WeightsError(
            f"{place['repo_id']}: its {name} has {size} bytes, more than the {limit} a VGGish model can have"
        )


def _cached(place: dict[str, Any], revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    from vggish_pt.pretrained import folder as storage

    # Not hf_hub_download(local_files_only=True), which may ask the network for other things first.
    names = (storage.CONFIG_NAME, storage.WEIGHTS_NAME)
    paths = [try_to_load_from_cache(filename=name, revision=revision, **place) for name in names]
    return Path(paths[0]).parent if all(isinstance(path, str) for path in paths) else None


@contextlib.contextmanager
def _translated(repo_id: str, revision: str | None, action: str = "download") -> Iterator[None]:
    """Turns errors of huggingface_hub into those of this package."""
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
    except errors.LocalEntryNotFoundError as error:  # how hf_hub_download says that the connection failed
        raise DownloadError(f"{repo_id}: the {action} failed ({_first_line(error)}); try again") from None
    except errors.HFValidationError as error:
        raise WeightsError(f"{repo_id}: no valid repository name ({_first_line(error)})") from None
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{repo_id}: holds no VGGish model ({_first_line(error)})") from None
    except errors.HfHubHTTPError as error:
        raise DownloadError(f"{repo_id}: the Hub refuses the {action} ({_first_line(error)})") from None
    except (WeightsError, OutputError):
        raise
    except OSError as error:
        # Failed connections are of this kind with some versions of huggingface_hub, as are failed writes.
        if error.errno is not None and error.filename is not None:
            raise OutputError(f"{error.filename}: cannot keep the download there ({error.strerror})") from None
        raise DownloadError(f"{repo_id}: the {action} failed ({_first_line(error)}); try again") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "httpx",
            "httpx2",
            "httpcore",
            "httpcore2",
            "requests",
        ):
            raise
        raise DownloadError(f"{repo_id}: the {action} failed ({_first_line(error)}); try again") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
