"""VGGish for mteb's audio tasks.

>>> import mteb
>>> from vggish_pt.mteb import VGGishEncoder
>>> mteb.evaluate(VGGishEncoder(), mteb.get_tasks(["ESC50"]))       # doctest: +SKIP

mteb contains another VGGish, "google/vggish", from torch_vggish_yamnet; docs/migration.md lists the differences.
Written for mteb 2.26.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggish_pt import constants as c
from vggish_pt.errors import SettingsError
from vggish_pt.inference.devices import choose_device
from vggish_pt.inference.pooling import Pooling, check_pooling, clip_vector, layer_size
from vggish_pt.inference.settings import EmbedSettings
from vggish_pt.model import VGGish
from vggish_pt.pretrained import folder as storage
from vggish_pt.pretrained import registry
from vggish_pt.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Iterable

require("mteb", "vggish_pt.mteb")

from mteb.models import ModelMeta  # noqa: E402
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402

_LICENSES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-4.0": "cc-by-4.0", "BSD-3-Clause": "bsd-3-clause"}


class VGGishEncoder(AbsEncoder):  # type: ignore[misc]
    """Encoder for mteb's audio tasks: one vector for each clip.

    Args:
        model_name: "audioset", "synthetic", a model folder, or a Hub repository "user/name".
        revision: branch, tag or commit of a Hub repository.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto"; None for "auto".
        pooling: pooling of a clip's windows to one vector: "mean", "max" or "mean+std".
        settings: ``hop``, ``pad``, ``layer``, ``postprocess``, ``resampler`` and ``batch_size`` of
            :meth:`vggish_pt.VGGish.embed`. Settings that differ from the default are part of the model's name in
            mteb's results, so that results of different settings are not mixed.

    Attributes:
        mteb_model_meta: the model's metadata for mteb. Its revision is the digest of the weights.

    Raises:
        WeightsError: there are no such weights.
        SettingsError: a setting is not valid.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] = "audioset",
        revision: str | None = None,
        *,
        device: str | None = None,
        pooling: Pooling = "mean",
        **settings: Any,
    ) -> None:
        self.pooling = check_pooling(pooling)
        self.settings = EmbedSettings(**settings)
        folder = registry.resolve(model_name, revision=revision)
        self.model = VGGish.from_pretrained(folder, device=choose_device(device or "auto"))
        size = layer_size(self.settings.layer, self.model.config) * (2 if pooling == "mean+std" else 1)
        given = {"pooling": pooling, **asdict(replace(self.settings, batch_size=None))}
        defaults = {"pooling": "mean", **asdict(EmbedSettings())}
        changed = {name: value for name, value in given.items() if value != defaults[name]}
        self.mteb_model_meta = _meta(folder, self.model, size, changed)

    def encode(self, inputs: Iterable[dict[str, Any]], **kwargs: Any) -> NDArray[np.float32]:  # noqa: ARG002
        """Compute a vector for each clip.

        Args:
            inputs: batches whose "audio" is a list of items with "array" (T,) or (channels, T) and "sampling_rate".
            kwargs: further arguments of mteb, such as the task and the split. Not used.

        Returns:
            (clips, d) float32.

        Raises:
            SettingsError: the inputs have no audio.
            AudioError: audio is empty or non-finite.
        """
        rows = []
        for batch in inputs:
            if "audio" not in batch:
                raise SettingsError(f"VGGish embeds audio, but this task has {', '.join(batch) or 'nothing'}")
            rows += self._embed(batch["audio"])
        return np.stack(rows) if rows else np.zeros((0, self.mteb_model_meta.embed_dim), np.float32)

    def _embed(self, clips: list[Any]) -> list[NDArray[np.float32]]:
        arrays = [np.asarray(clip["array"]) for clip in clips]
        rates = [clip["sampling_rate"] or c.SAMPLE_RATE for clip in clips]
        rows: list[Any] = [None] * len(clips)
        for rate in sorted(set(rates)):
            chosen = [i for i, other in enumerate(rates) if other == rate]
            sources = [arrays[i] for i in chosen]
            with closing(self.model.embed_iter(sources, rate, **asdict(self.settings))) as results:
                for i, result in zip(chosen, results, strict=True):
                    rows[i] = clip_vector(result, self.pooling)
        return rows


def _meta(folder: Path, model: VGGish, size: int, experiment: dict[str, Any]) -> ModelMeta:
    config = model.config
    name = config.name if "/" in config.name else f"vggish_pt/{config.name}"
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    return ModelMeta(
        loader=VGGishEncoder,
        name=name,
        revision=storage.weights_digest(folder)[:16],
        release_date=None,
        languages=None,
        n_parameters=parameters,
        n_embedding_parameters=0,
        memory_usage_mb=round(parameters * 4 / 2**20),
        max_tokens=float("inf"),
        embed_dim=size,
        license=_LICENSES.get(config.license),
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        reference=None,
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None,
        modalities=["audio"],
        experiment_kwargs=experiment or None,
    )
