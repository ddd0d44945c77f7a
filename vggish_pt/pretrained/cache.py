"""Cache of downloaded weights.

The cache is a folder with one model folder for each entry of the registry, named after the entry and its digest, so
that weights of another registry get another folder. A model folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vggish_pt.errors import DownloadError, OutputError, SettingsError, WeightsError
from vggish_pt.pretrained.download import fetch
from vggish_pt.pretrained.entries import Download, Entry
from vggish_pt.pretrained.environment import offline_variable
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME
from vggish_pt.pretrained.verify import differences, write_sums
from vggish_pt.utils.text import error_reason

CACHE_VARIABLE = "VGGISH_PT_CACHE"
MIRROR_VARIABLE = "VGGISH_PT_MIRROR"
MIRROR_SHA256_VARIABLE = "VGGISH_PT_MIRROR_SHA256"

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


def location(entry: Entry, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of an entry's model folder in the cache, which need not exist.

    Args:
        entry: an entry with a checkpoint.
        cache_dir: the cache; None for ``VGGISH_PT_CACHE`` or the user's cache folder.
    """
    root = cache_dir or os.environ.get(CACHE_VARIABLE)
    if not root:
        import pooch

        root = pooch.os_cache("vggish_pt")
    digits = str(entry.digest).partition(":")[2]
    return Path(root).expanduser().absolute() / f"{entry.name}-{digits[:8]}"


def is_cached(entry: Entry, cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return True if an entry's model folder is in the cache."""
    folder = location(entry, cache_dir)
    return all((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))


def obtain(
    entry: Entry,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    mirror_sha256: Sequence[str] = (),
    progress: bool | None = None,
) -> Path:
    """Return an entry's model folder; download and convert it the first time.

    Several processes may call this at the same time: one downloads, the others wait.

    Args:
        entry: an entry with a checkpoint.
        cache_dir: the cache; None for ``VGGISH_PT_CACHE`` or the user's cache folder.
        local_files_only: True never touches the network.
        mirror_sha256: SHA-256 digests (64 hexadecimal digits) of files whose digest the registry lacks, in addition
            to those in ``VGGISH_PT_MIRROR_SHA256``.
        progress: whether to show progress bars on stderr; None: if it is a terminal.

    Raises:
        DownloadError: not in the cache, and the download failed; the message says what to do.
        WeightsError: the converted model differs from the registry.
        SettingsError: ``mirror_sha256`` or an environment variable has a wrong value.
        OutputError: the cache cannot be written.
    """
    target = location(entry, cache_dir)
    if is_cached(entry, cache_dir):
        return target
    sources = _sources(entry, mirror_sha256)
    try:
        if local_files_only or offline_variable():
            reason = "local_files_only is set" if local_files_only else f"{offline_variable()} is set"
            raise DownloadError(f"not in the cache, and {reason}")
        with _locked(target):
            if not is_cached(entry, cache_dir):  # another process may have been faster
                _make(entry, target, sources, progress)
    except DownloadError as error:
        raise DownloadError(f"{entry.name}: {error}. {_advice(entry, target)}") from None
    return target


def _make(entry: Entry, target: Path, sources: Mapping[str, Sequence[Download]], progress: bool | None) -> None:
    """Download, convert, verify, and publish in one step."""
    downloads = target.with_name(f"{target.name}.download")
    with _writable(target):
        for stale in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        for partial in downloads.glob("tmp*"):
            partial.unlink()
    files = {role: fetch(of_role, downloads, progress=progress) for role, of_role in sources.items() if of_role}
    with _writable(target):
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        from vggish_pt.pretrained.convert import convert

        model = staging / target.name
        convert(files["checkpoint"], model, pca=files.get("pca"), name=entry.name, license=entry.license)
        with _writable(target):
            write_sums(model)
        if wrong := differences(model, entry):
            raise WeightsError(f"{entry.name}: the converted model differs from the registry: {'; '.join(wrong)}")
        with _writable(target):
            shutil.rmtree(target, ignore_errors=True)  # an incomplete one
            model.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)


def _sources(entry: Entry, mirror_sha256: Sequence[str]) -> dict[str, list[Download]]:
    """Return the sources of each file, with the user's digests, those of ``VGGISH_PT_MIRROR`` first."""
    digests = [*mirror_sha256, *os.environ.get(MIRROR_SHA256_VARIABLE, "").replace(",", " ").split()]
    unused = dict.fromkeys(_sha256(digest) for digest in digests)
    sources: dict[str, list[Download]] = {}
    for role, registered in (("checkpoint", entry.checkpoint), ("pca", entry.pca)):
        sources[role] = []
        for source in registered:
            matching = [d for d in unused if source.digest is None and d.startswith(source.named_digits)]
            sources[role].append(replace(source, digest=f"sha256:{matching[0]}") if matching else source)
            if matching:
                del unused[matching[0]]
        sources[role] = [*_mirrored(sources[role]), *sources[role]]
    if unused:
        names = [source.name for source in (*entry.checkpoint, *entry.pca) if source.digest is None]
        raise SettingsError(
            f"mirror_sha256: {', '.join(unused)} is of no file that needs one; "
            f"its first digits must be in the file's name ({', '.join(names) or 'no file needs one'})"
        )
    return sources


def _sha256(text: str) -> str:
    if found := _SHA256.fullmatch(text.strip().lower()):
        return found[1]
    raise SettingsError(f"mirror_sha256 must be a full SHA-256 (64 hexadecimal digits), not {text!r}")


def _mirrored(sources: Sequence[Download]) -> list[Download]:
    """Return the same files at ``VGGISH_PT_MIRROR``; none if that is not set."""
    prefix = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    try:
        return [replace(source, url=f"{prefix}/{source.name}") for source in sources if prefix]
    except WeightsError as error:
        raise SettingsError(f"{MIRROR_VARIABLE}: {error}") from None


def _advice(entry: Entry, target: Path) -> str:
    mirrors = [source.name for source in (*entry.checkpoint, *entry.pca) if source.digest is None]
    digests = (
        f"or give the SHA-256 of {' and '.join(mirrors)}, if you know it from somebody you trust, "
        f"with --mirror-sha256 or {MIRROR_SHA256_VARIABLE}; "
        if mirrors
        else ""
    )
    return (
        f"Ways out: run 'vggish-pt weights download {entry.name}' on a machine with a network, and copy "
        f"the folder that 'vggish-pt weights path {entry.name}' prints there to {target} here; "
        "or convert a checkpoint that you have with 'vggish-pt convert' and give its folder as weights; "
        f"or set {MIRROR_VARIABLE}=https://... to a mirror of your own; {digests}"
        "or, for other and weaker embeddings, use the weights 'synthetic' (--weights synthetic), "
        "which need no network"
    )


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a model folder; the operating system frees it when the process ends."""
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
    """Turn errors of the operating system into an error about the cache."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target.parent}: the cache cannot be written ({error_reason(error)}); "
            f"set {CACHE_VARIABLE} to a folder that can be, and that has room"
        ) from None
