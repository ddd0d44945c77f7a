"""The calls of torchvggish, with the numbers of torchvggish.

A project that was written for it changes one import::

    from vggish_pt.compat import vggish, vggish_input     # was: from torchvggish import vggish, vggish_input
    from vggish_pt.compat import VGGish                   # was: torch.hub.load("harritaylor/torchvggish", "vggish")

Everything is as there: a ReLU after the last layer, whitening in float32, 8-bit values that are rounded and kept as
float32, one window squeezed to (128,), resampy, no window for a clip below 0.975 s, ``features`` and ``embeddings`` as
``nn.Sequential`` under the same names, gradients. What is not carried over are faults: WAV files of floating point are
read at their level (not as near silence), weights are verified, and nothing is unpickled. New work is better served by
:class:`vggish_pt.VGGish`.

Source: torchvggish 0.2 on PyPI (``vggish``, ``vggish_input``) and its repository's ``hubconf.py`` (``VGGish``).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vggish_pt import constants as c
from vggish_pt.audio import open_audio
from vggish_pt.audio.resample import make_resampler
from vggish_pt.errors import SettingsError, WeightsError
from vggish_pt.model import VGGish as _VGGish
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.network import Network
from vggish_pt.pretrained import registry

__all__ = ["VGG", "Postprocessor", "VGGish", "vggish", "vggish_input", "waveform_to_examples", "wavfile_to_examples"]

Weights = str | os.PathLike[str]

# Windows per pass through the convolutions where no gradients are wanted. The numbers are those of one pass.
_BLOCK = 16


def waveform_to_examples(
    data: NDArray[Any], sample_rate: float | None, return_tensor: bool = True
) -> Tensor | NDArray[np.float32]:
    """Waveform → log-mel examples, as ``vggish_input.waveform_to_examples``.

    Args:
        data: (T,) or (T, channels), in [-1, 1].
        sample_rate: hertz. Other rates than 16 kHz are resampled with resampy.
        return_tensor: False for an array without the channel axis.

    Returns:
        (n, 1, 96, 64) float32 tensor, or (n, 96, 64) float32 array. n is 0 below 0.975 s.

    Raises:
        SettingsError: data of another shape, or no sample rate.
        MissingDependencyError: resampy is needed and not installed.
    """
    samples = np.asarray(data, dtype=np.float64)
    if samples.ndim not in (1, 2):
        raise SettingsError(f"waveform must be (T,) or (T, channels), not {samples.shape}")
    if sample_rate is None or int(sample_rate) != sample_rate or sample_rate < 1:
        raise SettingsError(f"an array needs its sample rate, in whole hertz, not {sample_rate!r}")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    resampler = make_resampler(int(sample_rate), "resampy")
    samples = np.concatenate([resampler.push(samples), resampler.flush()])
    examples: Tensor = LogMel(torch.float64)(torch.from_numpy(samples))
    return examples.unsqueeze(1) if return_tensor else np.asarray(examples)


def wavfile_to_examples(wav_file: Any, return_tensor: bool = True) -> Tensor | NDArray[np.float32]:
    """Audio file → log-mel examples, as ``vggish_input.wavfile_to_examples``.

    Args:
        wav_file: a path or binary file object.
        return_tensor: False for an array without the channel axis.

    Returns:
        As :func:`waveform_to_examples`.

    Raises:
        AudioError: a file that is missing, empty or damaged.
    """
    samples, sample_rate = _read_int16(wav_file)
    return waveform_to_examples(samples, sample_rate, return_tensor)


vggish_input = SimpleNamespace(waveform_to_examples=waveform_to_examples, wavfile_to_examples=wavfile_to_examples)
"""Stands for torchvggish's module of that name."""


class Postprocessor(nn.Module):
    """Embeddings → whitened 8-bit values as torchvggish has them: in float32, rounded, squeezed.

    Args:
        eigen_vectors: (128, 128).
        means: (128,).
        in_state_dict: whether they are part of the state dict: of the hub's model they are, of PyPI's not.
    """

    pca_eigen_vectors: Tensor
    pca_means: Tensor

    def __init__(self, eigen_vectors: Tensor, means: Tensor, *, in_state_dict: bool = True) -> None:
        super().__init__()
        self.register_buffer("pca_eigen_vectors", eigen_vectors.float(), persistent=in_state_dict)
        self.register_buffer("pca_means", means.float().reshape(-1, 1), persistent=in_state_dict)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Postprocesses.

        Args:
            embeddings: (n, 128).

        Returns:
            (n, 128) whole numbers from 0 to 255 in float32; (128,) if n is 1.
        """
        whitened = torch.mm(self.pca_eigen_vectors, embeddings.t() - self.pca_means).t()
        clipped = whitened.clamp(c.QUANTIZE_MIN, c.QUANTIZE_MAX)
        quantized = torch.round((clipped - c.QUANTIZE_MIN) * (255.0 / (c.QUANTIZE_MAX - c.QUANTIZE_MIN)))
        return quantized.squeeze()

    postprocess = forward


class VGG(nn.Module):
    """The network under torchvggish's names.

    Args:
        network: its layers are used, not copied.
        postprocessor: None leaves it out.

    Attributes:
        features: convolutions, ReLUs and pools.
        embeddings: fully connected layers, each with a ReLU; the last one, too.
        pproc: the postprocessor, if there is one.
        postprocess: whether it is used.
    """

    def __init__(self, network: Network, postprocessor: Postprocessor | None) -> None:
        super().__init__()
        n = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        blocks = [(n.conv1,), (n.conv2,), (n.conv3_1, n.conv3_2), (n.conv4_1, n.conv4_2)]
        layers: list[nn.Module] = []
        for block in blocks:
            for convolution in block:
                layers += [convolution, nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            n.fc1, nn.ReLU(inplace=True), n.fc2, nn.ReLU(inplace=True), n.embedding, nn.ReLU(inplace=True)
        )
        self.postprocess = postprocessor is not None
        if postprocessor is not None:
            self.pproc = postprocessor

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel examples → embeddings.

        Args:
            x: (n, 1, 96, 64) float32.

        Returns:
            (n, 128) float32; postprocessed, see :class:`Postprocessor`.
        """
        if torch.is_grad_enabled() or len(x) <= _BLOCK:
            x = self.features(x)
        else:
            x = torch.cat([self.features(block) for block in torch.split(x, _BLOCK)])
        x = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))
        return self.pproc(x) if self.postprocess else x


def vggish(
    postprocess: bool = True, *, weights: Weights = "audioset", pca: str | os.PathLike[str] | None = None
) -> VGG:
    """The model of torchvggish 0.2 from PyPI: log-mel examples → embeddings.

    Args:
        postprocess: whether to whiten and quantise.
        weights: a name, model folder or Hub repository; or a checkpoint file, torchvggish's ``.pth`` among them.
        pca: file with the PCA parameters, for a checkpoint file without them.

    Returns:
        The model, in training mode as there (which makes no difference).

    Raises:
        WeightsError: no such weights, or no PCA parameters.
    """
    network, postprocessor = _load(weights, pca, postprocess, in_state_dict=False)
    return VGG(network, postprocessor)


class VGGish(VGG):
    """The model of torchvggish's ``hubconf.py``: file or array → embeddings.

    Args:
        device: where to compute; None for CUDA where there is one, else the CPU.
        pretrained: False for random weights, and zeros as PCA parameters.
        preprocess: whether the input is audio; False for log-mel examples.
        postprocess: whether to whiten and quantise.
        progress: whether to show the progress of a download.
        weights: as in :func:`vggish`.
        pca: as in :func:`vggish`.

    Attributes:
        preprocess: as given; may be changed, and so may ``postprocess``.
        device: where inputs are moved.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        pretrained: bool = True,
        preprocess: bool = True,
        postprocess: bool = True,
        progress: bool = True,
        *,
        weights: Weights = "audioset",
        pca: str | os.PathLike[str] | None = None,
    ) -> None:
        if pretrained:
            network, postprocessor = _load(weights, pca, postprocess, in_state_dict=True, progress=progress)
        else:
            network, size = Network(final_relu=True), c.EMBEDDING_SIZE
            postprocessor = Postprocessor(torch.zeros(size, size), torch.zeros(size)) if postprocess else None
        super().__init__(network, postprocessor)
        self.preprocess = preprocess
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.to(self.device)

    def forward(self, x: Any, fs: float | None = None) -> Tensor:
        """Audio → embeddings.

        Args:
            x: path of an audio file, or an array (T,) or (T, channels) with ``fs``; without ``preprocess``, log-mel
                examples (n, 1, 96, 64).
            fs: sample rate of an array, in hertz.

        Returns:
            As :meth:`VGG.forward`.

        Raises:
            AudioError: a file that is missing, empty or damaged.
            SettingsError: neither path nor array, or an array without its rate.
        """
        if self.preprocess:
            x = self._preprocess(x, fs)
        return super().forward(x.to(self.device))

    def _preprocess(self, x: Any, fs: float | None) -> Any:
        if isinstance(x, np.ndarray):
            return waveform_to_examples(x, fs)
        if isinstance(x, str | os.PathLike):
            return wavfile_to_examples(x)
        raise SettingsError(f"VGGish takes a path, or an array with fs=, not {type(x).__name__}")


def _load(
    weights: Weights,
    pca: str | os.PathLike[str] | None,
    postprocess: bool,
    *,
    in_state_dict: bool,
    progress: bool = True,
) -> tuple[Network, Postprocessor | None]:
    known = isinstance(weights, str) and weights in registry.entries()
    if known or not Path(weights).is_file():
        if pca is not None:
            raise SettingsError("pca goes with a checkpoint file; named weights and model folders bring their own")
        found = registry.resolve(weights, progress=None if progress else False)
        model = _VGGish.from_pretrained(found, final_relu=True)
    else:
        from vggish_pt.pretrained.convert import convert

        # The model maps the file that it came from, so an open one may outlive the folder on some systems.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            convert(weights, Path(folder) / "model", pca=pca, final_relu=True)
            model = _VGGish.from_pretrained(Path(folder) / "model")
    if not postprocess:
        return model.network, None
    eigen_vectors, means = model.postprocess.eigen_vectors, model.postprocess.means
    if eigen_vectors is None or means is None:
        raise WeightsError(f"{weights}: no PCA parameters; pass pca=FILE (vggish_pca_params), or postprocess=False")
    return model.network, Postprocessor(eigen_vectors, means, in_state_dict=in_state_dict)


def _read_int16(file: Any) -> tuple[NDArray[np.float64], int]:
    """Samples in 16 bits as torchvggish has them, (T,) or (T, channels), and their rate."""
    import soundfile

    start = file.tell() if hasattr(file, "tell") else None
    # What is no file for libsndfile, or holds floating point, which 16 bits would silence, is left to our own reader;
    # it also knows what to say about damage.
    with contextlib.suppress(soundfile.SoundFileError, OSError, TypeError), soundfile.SoundFile(file) as opened:
        if opened.subtype not in ("FLOAT", "DOUBLE") and opened.frames:
            return opened.read(dtype="int16") / 32768.0, opened.samplerate
    if start is not None:
        file.seek(start)
    with open_audio(file) as audio:
        return np.concatenate(list(audio.blocks())), audio.sample_rate
