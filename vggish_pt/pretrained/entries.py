"""Entries of the registry of weights: names, sources and known numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from vggish_pt.errors import WeightsError

MAX_BYTES = 1 << 30
"""Largest size in bytes of a file to download."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMED_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.")  # torch.hub's convention: name-DIGITS.pth


@dataclass(frozen=True)
class Download:
    """Address of a file and the digest that identifies it.

    Attributes:
        url: http or https address, which ends in the file's name.
        digest: "md5:" and 32 hexadecimal digits, or "sha256:" and 64. None if no full digest is known: the user must
            give the SHA-256, whose first digits are in the file's name, as in ``name-10086976.pth``.
        size: bytes, or None if not known.

    Raises:
        WeightsError: a value is not as described.
    """

    url: str
    digest: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise WeightsError(f"{self.url!r} is no http or https address to download from")
        if not _FILE_NAME.fullmatch(self.name):
            raise WeightsError(f"{self.url!r} does not end in a plain file name")
        if self.digest is None and not self.named_digits:
            raise WeightsError(f"{self.url}: a digest is missing, and its first digits are not in the file's name")
        if self.digest is not None and not (isinstance(self.digest, str) and _DIGEST.fullmatch(self.digest)):
            raise WeightsError(
                f"{self.digest!r} is no full digest: give md5:<32 hex digits> or sha256:<64 hex digits>, or none"
            )
        if self.size is not None and (type(self.size) is not int or not 0 < self.size <= MAX_BYTES):
            raise WeightsError(f"{self.url}: size must be from 1 to {MAX_BYTES} bytes, not {self.size!r}")

    @property
    def name(self) -> str:
        """Name of the file."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def named_digits(self) -> str:
        """First digits of the SHA-256 in the file's name; empty if there are none."""
        found = _NAMED_DIGITS.search(self.name)
        return found[1] if found else ""


@dataclass(frozen=True)
class Smoke:
    """Known statistics of a model's output for 3 s of a 1 kHz sine of amplitude 1 at 16 kHz.

    Attributes:
        embedding_mean: mean of all values of the embeddings.
        embedding_std: (population) standard deviation of the same values.
        postprocessed_mean: mean of the 8-bit values.
        postprocessed_std: (population) standard deviation of the 8-bit values.
        tolerance: largest relative difference from each.
    """

    embedding_mean: float
    embedding_std: float
    postprocessed_mean: float
    postprocessed_std: float
    tolerance: float = 0.1


@dataclass(frozen=True)
class Entry:
    """Weights that have a name. Exactly one of ``folder`` and ``checkpoint`` is set.

    Attributes:
        name: name of the weights.
        license: SPDX expression.
        source: origin of the weights, for people.
        megabytes: approximate size.
        folder: name of the folder inside ``weights/``, for weights that ship with the package.
        sha256: digest of ``model.safetensors``, shipped or converted; None if not known.
        checkpoint: sources of the checkpoint, for weights that are downloaded; the first has a digest.
        pca: sources of the PCA parameters.
        smoke: known numbers of the converted model.

    Raises:
        WeightsError: a value is not as described.
    """

    name: str
    license: str
    source: str
    megabytes: float
    folder: str | None = None
    sha256: str | None = None
    checkpoint: tuple[Download, ...] = ()
    pca: tuple[Download, ...] = ()
    smoke: Smoke | None = None

    def __post_init__(self) -> None:
        for label, text in (("name", self.name), ("folder", self.folder or self.name)):
            if not isinstance(text, str) or not _NAME.fullmatch(text):
                raise WeightsError(
                    f"{text!r} cannot be a registry {label}: lower-case letters, digits, '.', '_' and '-'"
                )
        if bool(self.folder) == bool(self.checkpoint):
            raise WeightsError(f"{self.name}: a registry entry has either a folder or sources of a checkpoint")
        if self.checkpoint and self.digest is None:
            raise WeightsError(f"{self.name}: the first source of the checkpoint needs a full digest")
        if self.sha256 is not None and not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise WeightsError(f"{self.name}: {self.sha256!r} is no SHA-256 (64 hexadecimal digits)")

    @property
    def digest(self) -> str | None:
        """Digest that identifies the weights: of the published checkpoint, or of the shipped ``model.safetensors``."""
        if self.checkpoint:
            return self.checkpoint[0].digest
        return self.sha256 and f"sha256:{self.sha256}"
