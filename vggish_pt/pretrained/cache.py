"""Downloaded weights, converted once and kept.

The cache is a folder with one model folder for each entry of the registry, named after the entry and its
digest, so that a later registry's weights never meet an older one's. A model folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vggish_pt.errors import CheckpointError, DownloadError, OutputError, SettingsError, WeightsError
from vggish_pt.pretrained import connectivity as reach
from vggish_pt.pretrained.download import Download, digest_matches, digest_of, fetch, progress_bar
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME

if TYPE_CHECKING:
    from vggish_pt.pretrained.entries import Entry, Smoke

CACHE_VARIABLE = "VGGISH_PT_CACHE"
MIRROR_VARIABLE = "VGGISH_PT_MIRROR"
SUMS_NAME = "SHA256SUMS"


def location(entry: Entry, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The model folder that an entry has, or will have, in the cache.

    Args:
        entry: an entry with a checkpoint.
        cache_dir: the cache; None for ``VGGISH_PT_CACHE`` or the user's cache folder.
    """
    root = cache_dir or os.environ.get(CACHE_VARIABLE)
    if not root:
        import pooch

        root = pooch.os_cache("vggish_pt")
    return Path(root).expanduser().absolute() / f"{entry.name}-{entry.checkpoint[0].tag}"


def is_cached(entry: Entry, cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether an entry's model folder is in the cache."""
    folder = location(entry, cache_dir)
    return all((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))


def obtain(
    entry: Entry,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    progress: bool | None = None,
) -> Path:
    """An entry's model folder; downloads and converts it the first time. Several processes may do so at once.

    Args:
        entry: an entry with a checkpoint.
        cache_dir: the cache; None for ``VGGISH_PT_CACHE`` or the user's cache folder.
        local_files_only: True never touches the network.
        progress: whether to show progress bars on stderr; None: if it is a terminal.

    Raises:
        DownloadError: not in the cache and not to be had; the message names the ways out.
        WeightsError: the converted model does not give the known numbers.
        OutputError: the cache cannot be written.
    """
    target = location(entry, cache_dir)
    if is_cached(entry, cache_dir):
        return target
    try:
        if local_files_only or reach.offline_variable():
            why = "local_files_only is set" if local_files_only else f"{reach.offline_variable()} is set"
            raise DownloadError(f"it is not in the cache, and {why}")
        roles = _reachable({"checkpoint": _mirrored(entry.checkpoint), "pca": _mirrored(entry.pca)})
        with _locked(target):
            if not is_cached(entry, cache_dir):  # another process may have been faster
                _make(entry, target, roles, progress)
    except DownloadError as error:
        raise DownloadError(f"{entry.name}: {error}. {_ways_out(entry, target)}") from None
    return target


def _make(entry: Entry, target: Path, roles: Mapping[str, Sequence[Download]], progress: bool | None) -> None:
    """Downloads, converts, checks, and publishes in one step."""
    with _writable(target):
        for stale in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        downloads = target.with_name(f"{target.name}.download")
    with progress_bar(progress) as report:
        files = {role: fetch(places, downloads, report=report) for role, places in roles.items() if places}
    with _writable(target):
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        from vggish_pt.pretrained.convert import convert

        model = staging / target.name
        convert(files["checkpoint"], model, pca=files.get("pca"), name=entry.name, license=entry.license)
        if entry.smoke and (wrong := smoke_differences(model, entry.smoke)):
            raise WeightsError(
                f"{entry.name}: the converted model does not give the known numbers ({'; '.join(wrong)})"
            )
        with _writable(target):
            sums = (f"{digest_of(model / name).partition(':')[2]}  {name}\n" for name in (CONFIG_NAME, WEIGHTS_NAME))
            (model / SUMS_NAME).write_text("".join(sums), encoding="ascii")
            shutil.rmtree(target, ignore_errors=True)  # at most an incomplete one
            model.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)


def differences(folder: Path, *, sha256: str | None = None, smoke: Smoke | None = None) -> list[str]:
    """Checks a model folder: its files against their digests, its output against known numbers.

    Args:
        folder: a model folder.
        sha256: digest of ``model.safetensors``; None for the folder's own ``SHA256SUMS``.
        smoke: known numbers, or None.

    Returns:
        What is wrong, in words; empty if nothing is.

    Raises:
        CheckpointError: files or digests are missing or damaged.
    """
    try:
        if sha256 is not None:
            sums = {WEIGHTS_NAME: sha256}
        else:
            lines = (folder / SUMS_NAME).read_text(encoding="ascii").splitlines()
            sums = {name: value for value, _, name in (line.partition("  ") for line in lines)}
        wrong = [
            f"{name} has another digest than when it was stored"
            for name in (CONFIG_NAME, WEIGHTS_NAME)
            if name in sums and not digest_matches(folder / name, f"sha256:{sums[name]}")
        ]
        if WEIGHTS_NAME not in sums:
            raise CheckpointError(f"{folder / SUMS_NAME}: has no line for {WEIGHTS_NAME}")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder}: cannot be checked ({error})") from None
    return wrong or (smoke_differences(folder, smoke) if smoke else [])


def smoke_differences(folder: Path, smoke: Smoke) -> list[str]:
    """Runs a model on 3 s of a 1 kHz sine and compares its output's statistics with known ones.

    Returns:
        Those that are off by more than the tolerance, in words; empty if none is.

    Raises:
        CheckpointError: the model cannot be read.
    """
    import numpy as np
    import torch

    from vggish_pt.constants import SAMPLE_RATE
    from vggish_pt.nn.frontend import LogMel
    from vggish_pt.nn.network import Network
    from vggish_pt.nn.postprocess import Postprocessor
    from vggish_pt.pretrained.folder import read_model

    config, tensors = read_model(folder)
    parts = {
        name: {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        for name in ("network", "postprocess")
    }
    network, postprocess = Network(config.fc_width, config.final_relu), Postprocessor(**parts["postprocess"])
    network.load_state_dict({name: tensor.float() for name, tensor in parts["network"].items()})
    sine = np.sin(2 * np.pi * 1000 / SAMPLE_RATE * np.arange(3 * SAMPLE_RATE))
    values = network.infer(LogMel()(torch.from_numpy(sine))).clone()
    embedding = values.numpy().astype(np.float64)
    found = {"embedding_mean": embedding.mean(), "embedding_std": embedding.std()}
    if postprocess.available:
        quantized = postprocess(values, quantize=True).numpy()
        found |= {"postprocessed_mean": quantized.mean(), "postprocessed_std": quantized.std()}
    expected = {name: getattr(smoke, name) for name in found}
    return [
        f"{name} is {found[name]:.6g}, not {value:.6g}"
        for name, value in expected.items()
        if not abs(found[name] - value) <= smoke.tolerance * abs(value)
    ]


def _mirrored(places: Sequence[Download]) -> list[Download]:
    """The places to get a file from, those of ``VGGISH_PT_MIRROR`` first."""
    prefix = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if not prefix:
        return list(places)
    try:
        mirrored = [Download(f"{prefix}/{place.name}", place.digest, place.size) for place in places]
    except WeightsError as error:
        raise SettingsError(f"{MIRROR_VARIABLE}: {error}") from None
    return [*mirrored, *places]


def _reachable(roles: dict[str, list[Download]]) -> dict[str, list[Download]]:
    """Leaves out the places whose host does not answer.

    Raises:
        DownloadError: none is left for one of the files.
    """
    lost = reach.unreachable([place.url for places in roles.values() for place in places])
    for places in roles.values():
        left = [place for place in places if place.url not in lost]
        if places and not left:
            hosts = {urlsplit(place.url).netloc: lost[place.url] for place in places}
            raise DownloadError("no download: " + "; ".join(f"{host}: {why}" for host, why in hosts.items()))
        places[:] = left
    return roles


def _ways_out(entry: Entry, target: Path) -> str:
    return (
        f"Ways out: run 'vggish-pt weights download {entry.name}' on a machine with a network, and copy "
        f"the folder that 'vggish-pt weights path {entry.name}' prints there to {target} here; "
        "or convert a checkpoint that you have with 'vggish-pt convert' and give its folder as weights; "
        f"or set {MIRROR_VARIABLE}=https://... to a mirror of your own; "
        "or, for other and weaker embeddings, use the weights 'synthetic' (--weights synthetic), "
        "which need no network"
    )


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds the lock of a model folder; the system frees it when the process ends, however it ends."""
    from filelock import FileLock

    with _writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    """Turns what the system says about the cache into a message about it."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target.parent}: the cache cannot be written ({error.strerror or error}); "
            f"set {CACHE_VARIABLE} to a folder that can be, and that has room"
        ) from None
