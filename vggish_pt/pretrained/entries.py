"""Weights that have a name, as the registry describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vggish_pt.errors import WeightsError
from vggish_pt.pretrained.download import Download

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Smoke:
    """Known statistics of a model's output on 3 s of a 1 kHz sine of amplitude 1 at 16 kHz.

    Attributes:
        embedding_mean: mean over all embeddings.
        embedding_std: their (population) standard deviation.
        postprocessed_mean: mean of the 8-bit values.
        postprocessed_std: their (population) standard deviation.
        tolerance: by which fraction of itself each may be off.
    """

    embedding_mean: float
    embedding_std: float
    postprocessed_mean: float
    postprocessed_std: float
    tolerance: float = 0.1


@dataclass(frozen=True)
class Entry:
    """Weights that have a name. Either ``folder`` or ``checkpoint`` is set.

    Attributes:
        name: what to call them.
        license: SPDX expression.
        source: where they come from, for people.
        megabytes: size, roughly.
        folder: name of the folder inside ``weights/``, of weights that ship with the package.
        sha256: digest of the ``model.safetensors`` in it.
        checkpoint: where the checkpoint can be had, of weights that are downloaded.
        pca: where the PCA parameters can be had.
        smoke: known numbers of the converted model.
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
            raise WeightsError(f"{self.name}: a registry entry has either a folder or places to get a checkpoint from")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise WeightsError(f"{self.name}: {self.sha256!r} is no SHA-256 (64 hexadecimal digits)")

    @property
    def digest(self) -> str | None:
        """What identifies the weights: of the embedded model's tensors, or of the published checkpoint."""
        if self.checkpoint:
            return self.checkpoint[0].digest
        return self.sha256 and f"sha256:{self.sha256}"
