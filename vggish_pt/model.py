"""VGGish, the model: front end, network and postprocessing in one ``nn.Module``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.audio import Clip
from vggish_pt.inference.embeddings import Embeddings, raise_if_error
from vggish_pt.inference.pipeline import embed_clips, embed_sources, is_many
from vggish_pt.inference.settings import EmbedSettings, Postprocess
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.network import Network
from vggish_pt.nn.postprocess import Postprocessor
from vggish_pt.nn.windows import Pad
from vggish_pt.pretrained import folder as storage
from vggish_pt.pretrained import registry
from vggish_pt.pretrained.modules import load_tensors, save_and_push, stored_tensors

if TYPE_CHECKING:
    from vggish_pt.audio import AudioLike
    from vggish_pt.audio.resample import ResamplerName
    from vggish_pt.errors import VGGishError
    from vggish_pt.inference.stream import EmbeddingStream
    from vggish_pt.inference.stream_state import State


class VGGish(nn.Module):
    """VGGish: audio → one embedding of 128 numbers for each 0.96 s.

    Source: Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017, arXiv 1609.09430),
    and Google's code (``research/audioset/vggish`` in tensorflow/models).

    Args:
        config: configuration; None for Google's architecture with pre-activation output. A new model has random
            weights; :meth:`from_pretrained` loads trained ones.
        frontend_dtype: arithmetic of the front end: None (float64 on the CPU, float32 on other devices),
            ``torch.float32`` or ``torch.float64``.

    Attributes:
        frontend: :class:`~vggish_pt.nn.frontend.LogMel`, waveform at 16 kHz (..., T) → log-mel windows
            (..., n, 96, 64).
        network: :class:`~vggish_pt.nn.network.Network`, log-mel windows (n, 96, 64) → embeddings (n, 128).
        postprocess: :class:`~vggish_pt.nn.postprocess.Postprocessor`, embeddings → whitened or 8-bit embeddings.
        config: :class:`~vggish_pt.nn.config.VGGishConfig`.
    """

    def __init__(self, config: VGGishConfig | None = None, *, frontend_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config or VGGishConfig()
        self.frontend = LogMel(frontend_dtype)
        self.network = Network(self.config.fc_width, self.config.final_relu)
        self.postprocess = Postprocessor()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        final_relu: bool | None = None,
        frontend_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> VGGish:
        """Load a model with trained weights, in evaluation mode.

        Args:
            name_or_path: "audioset" (Google's; downloaded on first use), "synthetic" (ships with the package), a model
                folder, or a Hub repository "user/name".
            revision: branch, tag or commit of a Hub repository.
            token: access token for a Hub repository; None uses the one that ``hf auth login`` stored.
            cache_dir: folder for downloads; None for the user's cache folder.
            local_files_only: True never uses the network.
            final_relu: output mode instead of the configuration's; None for the configuration's.
            frontend_dtype: arithmetic of the front end; see the class.
            device: device of the model; None for the CPU.

        Raises:
            WeightsError: unknown weights, or weights that are damaged or of another architecture.
            DownloadError: the weights cannot be downloaded; the message names alternatives.
        """
        folder = registry.resolve(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        config, tensors = storage.read_model(folder)
        if final_relu is not None:
            config = replace(config, final_relu=final_relu)
        with torch.device("meta"):  # allocates and initialises nothing, as all tensors are replaced
            model = cls(config, frontend_dtype=frontend_dtype)
        return load_tensors(model, model.network, tensors, device)

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Write a model folder: ``config.json``, ``model.safetensors`` and a model card.

        Args:
            folder: the folder, which is created if it does not exist; a model in it is replaced.
            card: text of the model card (``README.md``); None for a default text.

        Raises:
            OutputError: the folder cannot be written.
        """
        from vggish_pt.pretrained.hub import model_card

        tensors = {name: tensor.numpy() for name, tensor in stored_tensors(self).items()}
        storage.write_model(Path(folder), self.config, tensors, card=model_card(self.config) if card is None else card)

    def push_to_hub(self, repo_id: str, *, token: str | bool | None = None, private: bool = False) -> str:
        """Upload the model to a Hub repository, which is created if it does not exist.

        Args:
            repo_id: "user/name".
            token: access token; None uses the stored one.
            private: True makes a new repository private.

        Returns:
            Address of the commit.

        Raises:
            WeightsError: the Hub rejects the upload or cannot be reached.
        """
        from vggish_pt.pretrained import hub

        return save_and_push(self.save_pretrained, hub.push, repo_id, token=token, private=private)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.conv1.weight.device

    def forward(self, examples: Tensor) -> Tensor:
        """Compute embeddings of log-mel windows, differentiably.

        Args:
            examples: (n, 96, 64) or (n, 1, 96, 64) floating point, the output of :attr:`frontend`.

        Returns:
            (n, 128), of the network's dtype.

        Raises:
            SettingsError: windows of another shape or type.
        """
        embeddings: Tensor = self.network(examples)
        return embeddings

    @overload
    def embed(self, source: AudioLike, sample_rate: float | None = None, **settings: Any) -> Embeddings: ...

    @overload
    def embed(
        self, source: Iterable[AudioLike], sample_rate: float | None = None, **settings: Any
    ) -> list[Embeddings]: ...

    def embed(self, source: Any, sample_rate: float | None = None, **settings: Any) -> Embeddings | list[Embeddings]:
        """Embed audio, without gradients.

        Args:
            source: a path, file object, bytes of an audio file, or an array or tensor (T,) or (channels, T), floating
                point in [-1, 1] or integer PCM. Or a list (any iterable) of these, which share batches.
            sample_rate: hertz; required for arrays and tensors, not allowed for other sources.
            settings: keyword arguments of :class:`~vggish_pt.EmbedSettings`, as follows.

        Keyword Args:
            hop (float): seconds from the start of one window to the next, a multiple of 0.01 (default 0.96).
            pad (Pad): "short" (default) pads with zeros only a clip shorter than one window; "drop" equals the
                reference; "tail" pads the tail too, so that windows cover every sample.
            batch_size (int): windows per batch of the network (default 256); results do not depend on it beyond
                float rounding.
            layer (str): "embedding" (default), an earlier layer, or "fused"; see
                :meth:`vggish_pt.nn.network.Network.forward`.
            postprocess (str): None (default), "pca" (whitened, clipped to [-2, 2]) or "uint8" (the same in 8 bits).
            resampler (ResamplerName): "soxr" (default), "resampy" (the reference's) or "torchaudio".
            allow_truncated (bool): True embeds what can be read of a truncated or damaged file, with a warning.

        Returns:
            :class:`~vggish_pt.inference.embeddings.Embeddings`; for many sources a list of them in the same order.

        Raises:
            AudioError: audio that is missing, empty, damaged or not finite; the message names it.
            SettingsError: a setting outside its range.
        """
        if not is_many(source):
            clip = Clip.from_source(source, sample_rate)
            [(_, result)] = embed_clips(self, [clip], EmbedSettings(**settings))
            return raise_if_error(result)
        with closing(embed_sources(self, source, sample_rate, EmbedSettings(**settings))) as results:
            return [raise_if_error(result) for result in results]

    def stream(
        self,
        sample_rate: float,
        *,
        hop: float = c.DEFAULT_HOP_SECONDS,
        pad: Pad = "short",
        layer: str = "embedding",
        postprocess: Postprocess | None = None,
        resampler: ResamplerName = "soxr",
        batch_size: int | None = None,
        channels: int | None = None,
        name: str = "stream",
        state: State | None = None,
    ) -> EmbeddingStream:
        """Return a stream that embeds audio as it arrives. Its results equal those of :meth:`embed` for the whole.

        Args:
            sample_rate: hertz.
            hop: see :meth:`embed`, also for the next five arguments.
            pad: padding of the end, in :meth:`~vggish_pt.inference.stream.EmbeddingStream.flush`.
            layer: layer whose output is returned.
            postprocess: None, "pca" or "uint8".
            resampler: library that resamples.
            batch_size: windows per batch of the network.
            channels: number of channels; None for that of the first chunk.
            name: name of the stream in errors and results.
            state: :meth:`~vggish_pt.inference.stream.EmbeddingStream.state` of a stream to resume, with the same rate,
                hop, padding and resampler.

        Returns:
            :class:`~vggish_pt.inference.stream.EmbeddingStream`, a context manager with ``push(chunk)`` and
            ``flush()``. :func:`vggish_pt.push_many` pushes into many streams, in shared batches.

        Raises:
            AudioError: a sample rate or number of channels outside its range.
            SettingsError: a setting outside its range, or a state that is damaged or of other settings.
            MissingDependencyError: the resampler's library is not installed.
            WeightsError: postprocessing with a model that has no PCA parameters.
        """
        from vggish_pt.inference.stream import EmbeddingStream

        settings = EmbedSettings(hop, pad, batch_size, layer, postprocess, resampler)
        return EmbeddingStream(self, sample_rate, settings, channels=channels, name=name, state=state)

    def embed_iter(
        self,
        sources: Iterable[AudioLike],
        sample_rate: float | None = None,
        *,
        workers: int = 1,
        **settings: Any,
    ) -> Generator[Embeddings | VGGishError]:
        """Embed many sources one after the other. A source that fails yields its error.

        Args:
            sources: any iterable; it is read as far ahead as needed to fill batches.
            sample_rate: see :meth:`embed`.
            workers: number of threads that decode, resample and run the front end ahead of the network; 0 for none.
            settings: see :meth:`embed`.

        Yields:
            For each source, in order, its :class:`~vggish_pt.inference.embeddings.Embeddings`, or a
            :class:`~vggish_pt.errors.VGGishError` with the reason why there are none.

        Raises:
            SettingsError: a setting outside its range.
        """
        return embed_sources(self, sources, sample_rate, EmbedSettings(**settings), workers=workers)
