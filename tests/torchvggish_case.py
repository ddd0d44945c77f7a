"""Weights and waveforms for the comparison with torchvggish, and, as a script, its outputs for them.

    pip install torchvggish==0.2 resampy==0.4.3 && python tests/torchvggish_case.py

writes tests/data/torchvggish_0.2.npz. NumPy's `RandomState` gives the same numbers for ever, so the weights need not be
kept. The fully connected layers are narrow to keep the test quick; everything else is torchvggish's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

OUTPUTS = Path(__file__).parent / "data" / "torchvggish_0.2.npz"
WIDTH = 16
_SHAPES = {
    "features.0": (64, 1, 3, 3),
    "features.3": (128, 64, 3, 3),
    "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3),
    "features.11": (512, 256, 3, 3),
    "features.13": (512, 512, 3, 3),
    "embeddings.0": (WIDTH, 12288),
    "embeddings.2": (WIDTH, WIDTH),
    "embeddings.4": (128, WIDTH),
}


def state_dict():
    """torchvggish's layout: name → float32 array."""
    random = np.random.RandomState(11)
    tensors = {}
    for name, shape in _SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        tensors[f"{name}.weight"] = (random.standard_normal(shape) * scale).astype(np.float32)
        tensors[f"{name}.bias"] = (random.standard_normal(shape[0]) * 0.1).astype(np.float32)
    return tensors


def pca():
    """PCA parameters as torchvggish's file has them."""
    random = np.random.RandomState(12)
    rotation, _ = np.linalg.qr(random.standard_normal((128, 128)))
    return {"pca_eigen_vectors": rotation, "pca_means": random.standard_normal(128) * 0.1}


def waveforms():
    """Name → waveform (T,) or (T, channels), sample rate."""
    random = np.random.RandomState(13)

    def sound(rate, seconds):
        t = np.arange(int(rate * seconds)) / rate
        sweep = np.sin(2 * np.pi * (200 * t + 600 * t**2))
        return 0.4 * sweep + 0.05 * random.standard_normal(len(t))

    return {
        "mono_16k": (sound(16_000, 3.1), 16_000),
        "one_window": (sound(16_000, 1.2), 16_000),
        "stereo_44k1": (np.stack([sound(44_100, 2.2), sound(44_100, 2.2)], axis=1), 44_100),
        "mono_8k": (sound(8_000, 2.0), 8_000),
    }


def main():
    import torch
    import torchvggish.torchvggish as theirs
    from torch import nn
    from torchvggish import vggish_input

    theirs.hub.load_state_dict_from_url = lambda url, **_: pca()
    model = theirs.VGG(theirs.make_layers(), postprocess=True)
    relu = nn.ReLU(True)
    model.embeddings = nn.Sequential(
        nn.Linear(12288, WIDTH), relu, nn.Linear(WIDTH, WIDTH), relu, nn.Linear(WIDTH, 128), relu
    )
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state_dict().items()})
    arrays = {}
    for name, (waveform, rate) in waveforms().items():
        examples = vggish_input.waveform_to_examples(waveform, rate)
        with torch.no_grad():
            model.postprocess = False
            arrays[f"{name}/embedding"] = model(examples).numpy()
            model.postprocess = True
            arrays[f"{name}/postprocessed"] = model(examples).numpy()
    OUTPUTS.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUTPUTS, **arrays)


if __name__ == "__main__":
    main()
