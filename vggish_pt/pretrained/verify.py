"""Verification of model folders: digests, sources and known numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vggish_pt.errors import CheckpointError
from vggish_pt.pretrained.download import digest_of
from vggish_pt.pretrained.folder import CONFIG_NAME, WEIGHTS_NAME, read_config, weights_digest
from vggish_pt.utils.text import error_reason

if TYPE_CHECKING:
    from vggish_pt.pretrained.entries import Entry, Smoke

SUMS_NAME = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write the digests of a converted model's files to its ``SHA256SUMS``, for ``sha256sum -c``.

    Raises:
        OSError: a file cannot be read or written.
    """
    lines = [f"{_sha256(folder, name)}  {name}\n" for name in (CONFIG_NAME, WEIGHTS_NAME)]
    (folder / SUMS_NAME).write_text("".join(lines), encoding="ascii")


def differences(folder: Path, entry: Entry | None = None) -> list[str]:
    """Compare a model folder with the registry, and a converted one also with its ``SHA256SUMS``.

    Args:
        folder: a model folder.
        entry: its entry in the registry; None compares with ``SHA256SUMS`` only.

    Returns:
        The differences, in words; empty if there are none.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    shipped = entry is not None and entry.folder is not None
    try:
        expected = {} if shipped else _read_sums(folder)
        wrong = [f"{name} was changed after conversion" for name in expected if _sha256(folder, name) != expected[name]]
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be checked ({error_reason(error)})") from None
    if entry is None:
        return wrong
    if entry.sha256 is not None and weights_digest(folder) != entry.sha256:
        wrong.append(f"{WEIGHTS_NAME} is not the registry's, whose SHA-256 is {entry.sha256}")
    wrong = wrong or ([] if shipped else _other_sources(folder, entry))
    return wrong or (smoke_differences(folder, entry.smoke) if entry.smoke else [])


def registry_lines(folder: Path, entry: Entry) -> str:
    """Return the lines of ``registry.toml`` that pin an entry's converted weights, for a maintainer to commit.

    Args:
        folder: the entry's model folder, without differences from the registry.
        entry: an entry with a checkpoint.
    """
    sources = [f"# converted from {file['name']}, sha256:{file['sha256']}" for file in _source_files(folder)]
    return "\n".join([f"[{entry.name}]", *sources, f'sha256 = "{weights_digest(folder)}"'])


def smoke_differences(folder: Path, smoke: Smoke) -> list[str]:
    """Compare the output of a model for 3 s of a 1 kHz sine with known statistics.

    Returns:
        Those statistics that are off by more than the tolerance, in words; empty if none is.

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
        part: {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        for part in ("network", "postprocess")
    }
    network, postprocess = Network(config.fc_width, config.final_relu), Postprocessor(**parts["postprocess"])
    network.load_state_dict({name: tensor.float() for name, tensor in parts["network"].items()})
    sine = np.sin(2 * np.pi * 1000 / SAMPLE_RATE * np.arange(3 * SAMPLE_RATE))
    values = network.infer(LogMel()(torch.from_numpy(sine))).clone()
    embedding = values.numpy().astype(np.float64)
    found: dict[str, float] = {"embedding_mean": embedding.mean(), "embedding_std": embedding.std()}
    if postprocess.available:
        quantized = postprocess(values, quantize=True).numpy()
        found |= {"postprocessed_mean": quantized.mean(), "postprocessed_std": quantized.std()}
    expected: dict[str, float] = {name: getattr(smoke, name) for name in found}
    return [
        f"{name} is {found[name]:.6g}, not {value:.6g}"
        for name, value in expected.items()
        if not abs(found[name] - value) <= smoke.tolerance * abs(value)  # so that NaN is a difference
    ]


def _sha256(folder: Path, name: str) -> str:
    return digest_of(folder / name).partition(":")[2]


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the digests in ``SHA256SUMS``, file name to hexadecimal digits."""
    path = folder / SUMS_NAME
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: damaged; download the weights again") from None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if name not in sums:
            raise CheckpointError(f"{path}: has no line for {name}; download the weights again")
    return {name: sums[name] for name in (CONFIG_NAME, WEIGHTS_NAME)}


def _source_files(folder: Path) -> list[dict[str, str]]:
    """Return name and digests of the files that a model was converted from, as its configuration records them."""
    files = read_config(folder).source.get("files")
    keys = ("name", "md5", "sha256")
    if not isinstance(files, list) or not all(isinstance(f, dict) and f.keys() >= set(keys) for f in files):
        raise CheckpointError(f"{folder / CONFIG_NAME}: does not record the files that the model was converted from")
    return [{key: str(file[key]) for key in keys} for file in files]


def _other_sources(folder: Path, entry: Entry) -> list[str]:
    """Compare the files that a model was converted from with the sources in the registry."""
    digests = {source.name: source.digest for source in (*entry.checkpoint, *entry.pca)}
    wrong = []
    for file in _source_files(folder):
        name, digest = file["name"], digests.get(file["name"])
        if name not in digests:
            wrong.append(f"converted from {name}, which is no source of {entry.name} in the registry")
        elif digest not in (None, f"md5:{file['md5']}", f"sha256:{file['sha256']}"):
            wrong.append(f"converted from another {name} than the registry's")
    return wrong
