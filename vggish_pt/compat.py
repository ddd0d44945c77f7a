"""torchvggish's interface, with torchvggish's numbers.

A project that uses torchvggish changes one import::

    from vggish_pt.compat import vggish, vggish_input     # was: from torchvggish import vggish, vggish_input
    from vggish_pt.compat import VGGish                   # was: torch.hub.load("harritaylor/torchvggish", "vggish")

The behaviour is the same: a ReLU after the last layer, whitening in float32, 8-bit values that are rounded and
returned as float32, one window squeezed to (128,), resampy, no window below 0.975 s, ``features`` and ``embeddings`` as
``nn.Sequential`` under the same names, gradients. Faults are not copied: floating-point WAV files are read at their
level, not as near silence; weights are verified; nothing is unpickled. Use :class:`vggish_pt.VGGish` in new projects.

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

_BLOCK = 16  # windows per pass through the convolutions without gradients; it does not change the numbers

# Input: the functions of torchvggish's module vggish_input.


def waveform_to_examples(
    data: NDArray[Any], sample_rate: float | None, return_tensor: bool = True
) -> Tensor | NDArray[np.float32]:
    """Compute log-mel examples of a waveform, as ``vggish_input.waveform_to_examples``.

    Args:
        data: (T,) or (T, channels), in [-1, 1].
        sample_rate: in hertz. Rates other than 16 kHz are resampled with resampy.
        return_tensor: False for an array without the channel axis.

    Returns:
        (n, 1, 96, 64) float32 tensor, or (n, 96, 64) float32 array. n is 0 below 0.975 s.

    Raises:
        SettingsError: data of another shape, or no valid sample rate.
        MissingDependencyError: resampy is needed but not installed.
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
    """Compute log-mel examples of an audio file, as ``vggish_input.wavfile_to_examples``.

    Args:
        wav_file: a path or binary file object.
        return_tensor: False for an array without the channel axis.

    Returns:
        As :func:`waveform_to_examples`.

    Raises:
        AudioError: the file is missing, empty or damaged.
    """
    samples, sample_rate = _read_int16(wav_file)
    return waveform_to_examples(samples, sample_rate, return_tensor)


def _read_int16(file: Any) -> tuple[NDArray[np.float64], int]:
    """Return 16-bit samples as torchvggish reads them, (T,) or (T, channels), and their rate."""
    import soundfile

    start = file.tell() if hasattr(file, "tell") else None
    # The package's own reader takes files that libsndfile cannot read, which it names in its errors, and files of
    # floating-point samples, which become silence in 16 bits.
    with contextlib.suppress(soundfile.SoundFileError, OSError, TypeError), soundfile.SoundFile(file) as opened:
        if opened.subtype not in ("FLOAT", "DOUBLE") and opened.frames:
            return opened.read(dtype="int16") / 32768.0, opened.samplerate
    if start is not None:
        file.seek(start)
    with open_audio(file) as audio:
        return np.concatenate(list(audio.blocks())), audio.sample_rate


vggish_input = SimpleNamespace(waveform_to_examples=waveform_to_examples, wavfile_to_examples=wavfile_to_examples)
"""Replaces torchvggish's module of that name."""


# Network: the classes of torchvggish's modules vggish and hubconf.


class Postprocessor(nn.Module):
    """PCA whitening and 8-bit quantisation as in torchvggish: in float32, rounded, squeezed.

    Args:
        eigen_vectors: (128, 128).
        means: (128,).
        in_state_dict: True adds both to the state dict, as in the hub's model; False, as in the model from PyPI.
    """

    pca_eigen_vectors: Tensor
    pca_means: Tensor

    def __init__(self, eigen_vectors: Tensor, means: Tensor, *, in_state_dict: bool = True) -> None:
        super().__init__()
        self.register_buffer("pca_eigen_vectors", eigen_vectors.float(), persistent=in_state_dict)
        self.register_buffer("pca_means", means.float().reshape(-1, 1), persistent=in_state_dict)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Whiten and quantise embeddings.

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
    """VGGish network with torchvggish's attribute names.

    Args:
        network: network whose layers are used, not copied.
        postprocessor: the postprocessor; None for none.

    Attributes:
        features: convolutions, ReLUs and pools.
        embeddings: fully connected layers, each followed by a ReLU.
        pproc: the postprocessor, if there is one.
        postprocess: True applies the postprocessor.
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
        """Compute embeddings of log-mel examples.

        Args:
            x: (n, 1, 96, 64) float32.

        Returns:
            (n, 128) float32; with a postprocessor, its output.
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
    """Load the model of torchvggish 0.2 from PyPI, from log-mel examples to embeddings.

    Args:
        postprocess: True whitens and quantises.
        weights: a name, a model folder, a Hub repository, or a checkpoint file such as torchvggish's ``.pth``.
        pca: file with the PCA parameters, for a checkpoint file without them.

    Returns:
        The model, in training mode as in torchvggish; the network has no layer on which the mode has an effect.

    Raises:
        WeightsError: there are no such weights, or no PCA parameters.
    """
    network, postprocessor = _load(weights, pca, postprocess, in_state_dict=False)
    return VGG(network, postprocessor)


class VGGish(VGG):
    """Model of torchvggish's ``hubconf.py``, from a file or array to embeddings.

    Args:
        device: device to compute on; None for CUDA if available, else the CPU.
        pretrained: False for random weights, with zeros as PCA parameters.
        preprocess: True if inputs are audio; False if they are log-mel examples.
        postprocess: True whitens and quantises.
        progress: True shows the progress of a download.
        weights: see :func:`vggish`.
        pca: see :func:`vggish`.

    Attributes:
        preprocess: as given. It may be changed, like ``postprocess``.
        device: device that inputs are moved to.
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
        """Compute embeddings of audio.

        Args:
            x: path of an audio file; an array (T,) or (T, channels), with ``fs``; or, without ``preprocess``, log-mel
                examples (n, 1, 96, 64).
            fs: sample rate of an array, in hertz.

        Returns:
            As :meth:`VGG.forward`.

        Raises:
            AudioError: the file is missing, empty or damaged.
            SettingsError: ``x`` is neither a path nor an array, or ``fs`` is missing.
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
            raise SettingsError(
                "pca is for checkpoint files; named weights and model folders contain their PCA parameters"
            )
        found = registry.resolve(weights, progress=None if progress else False)
        model = _VGGish.from_pretrained(found, final_relu=True)
    else:
        from vggish_pt.pretrained.convert import convert

        # The model maps its file into memory, and some systems cannot delete a mapped file.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            convert(weights, Path(folder) / "model", pca=pca, final_relu=True)
            model = _VGGish.from_pretrained(Path(folder) / "model")
    if not postprocess:
        return model.network, None
    eigen_vectors, means = model.postprocess.eigen_vectors, model.postprocess.means
    if eigen_vectors is None or means is None:
        raise WeightsError(f"{weights}: no PCA parameters; pass pca=FILE (vggish_pca_params), or postprocess=False")
    return model.network, Postprocessor(eigen_vectors, means, in_state_dict=in_state_dict)
