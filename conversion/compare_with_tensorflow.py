"""Proof of a conversion: compare a checkpoint in TensorFlow with the converted model folder in vggish_pt.

    vggish-pt convert vggish_model.ckpt --out vggish
    python conversion/compare_with_tensorflow.py vggish_model.ckpt vggish

First every tensor is compared bit for bit with the tensor that TensorFlow reads from the checkpoint. Then both
networks compute the same examples, and the largest difference after each block is printed. The exit status is 0 if all
tensors are equal and no layer differs by more than the bound, else 1.

TensorFlow must be installed (``pip install tensorflow-cpu``).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import torch

from vggish_pt.nn.network import Network
from vggish_pt.pretrained.folder import read_model

BOUND = 1e-5
"""Largest allowed difference, relative to the layer's largest value: about ten rounding errors of float32."""

CONVOLUTIONS = {
    "conv1": ["conv1"],
    "conv2": ["conv2"],
    "conv3": ["conv3/conv3_1", "conv3/conv3_2"],
    "conv4": ["conv4/conv4_1", "conv4/conv4_2"],
}
MATRICES = {"fc1": "fc1/fc1_1", "fc2": "fc1/fc1_2", "embedding": "fc2"}


def tensorflow_layers(
    variables: dict[str, np.ndarray], examples: np.ndarray, final_relu: bool
) -> dict[str, np.ndarray]:
    """Compute VGGish in plain TensorFlow operations.

    Args:
        variables: values by their names in Google's graph, without "vggish/".
        examples: (n, 96, 64) float32.
        final_relu: whether a ReLU follows the last layer.

    Returns:
        Outputs by vggish_pt's names of layers, in TensorFlow's order (n, height, width, channels).
    """
    outputs = {}
    x = tf.constant(examples[..., np.newaxis])
    for block, scopes in CONVOLUTIONS.items():
        for scope in scopes:
            x = tf.nn.conv2d(x, variables[f"{scope}/weights"], strides=1, padding="SAME")
            x = tf.nn.relu(x + variables[f"{scope}/biases"])
        x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="SAME")
        outputs[block] = x.numpy()
    x = tf.reshape(x, (len(examples), -1))
    for layer, scope in MATRICES.items():
        x = tf.matmul(x, variables[f"{scope}/weights"]) + variables[f"{scope}/biases"]
        if layer != "embedding" or final_relu:
            x = tf.nn.relu(x)
        outputs[layer] = x.numpy()
    return outputs


def unequal_tensors(variables: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the model's tensors that differ in any bit from the checkpoint's."""
    scopes = {scope.rsplit("/", 1)[-1]: scope for block in CONVOLUTIONS.values() for scope in block} | MATRICES
    unequal = []
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part != "network":
            continue
        layer, kind = rest.split(".")
        expected = variables[f"{scopes[layer]}/{'weights' if kind == 'weight' else 'biases'}"]
        found = tensor.numpy()
        # Back to TensorFlow's order of axes: the inverse of the conversion.
        found = found.transpose({1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[found.ndim])
        if found.dtype != expected.dtype or found.shape != expected.shape or found.tobytes() != expected.tobytes():
            unequal.append(name)
    return unequal


def compare(checkpoint: str, folder: Path, examples: np.ndarray, bound: float) -> bool:
    """Print the comparison; return True if it passed."""
    config, tensors = read_model(folder)
    reader = tf.train.load_checkpoint(checkpoint)
    names = reader.get_variable_to_shape_map()
    prefix = "vggish/"
    kinds = ("/weights", "/biases")
    variables = {n[len(prefix) :]: reader.get_tensor(n) for n in names if n.startswith(prefix) and n.endswith(kinds)}
    unequal = unequal_tensors(variables, tensors)
    print(f"tensors that are not equal bit for bit: {', '.join(unequal) or 'none'} (of {len(variables)})")

    network = Network(config.fc_width, config.final_relu)
    weights = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    network.load_state_dict(weights)
    passed = not unequal
    print(f"{'layer':<10} {'largest value':>14} {'difference':>12} {'relative':>10}")
    for layer, expected in tensorflow_layers(variables, examples, config.final_relu).items():
        found = network.infer(torch.from_numpy(examples), layer)
        found = found.permute(0, 2, 3, 1) if found.ndim == 4 else found
        largest = float(np.abs(expected).max())
        difference = float(np.abs(found.numpy() - expected).max())
        relative = difference / largest if largest else difference
        # NaN fails this comparison.
        good = relative <= bound
        passed = passed and good
        print(f"{layer:<10} {largest:>14.6g} {difference:>12.3g} {relative:>10.3g}{'' if good else '  ABOVE'}")
    print(f"{'passed' if passed else 'FAILED'}: bound {bound:g} relative to each layer's largest value")
    return passed


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description="Compare a converted model with its checkpoint, layer by layer.")
    parser.add_argument("checkpoint", help="TensorFlow checkpoint: V1 file or V2 prefix")
    parser.add_argument("folder", type=Path, help="model folder that 'vggish-pt convert' wrote")
    parser.add_argument("--examples", type=Path, help=".npy of log-mel examples (n, 96, 64); default: 8 random ones")
    parser.add_argument("--bound", type=float, default=BOUND, help=f"default {BOUND:g}")
    options = parser.parse_args()
    if options.examples is not None:
        examples = np.load(options.examples, allow_pickle=False).astype(np.float32)
    else:
        # From log(0.01), which is silence, to loud sound.
        examples = np.random.default_rng(0).uniform(-4.6, 3.0, (8, 96, 64)).astype(np.float32)
    sys.exit(0 if compare(options.checkpoint, options.folder, examples, options.bound) else 1)


if __name__ == "__main__":
    main()
