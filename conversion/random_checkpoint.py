"""Write a VGGish checkpoint of random weights with TensorFlow, to test conversions.

    python conversion/random_checkpoint.py random.ckpt --format v1 --fc-width 256

The variables have the names and shapes of Google's graph. ``--optimizer`` adds Adam's slots and a step counter, as in a
checkpoint of a training run. TensorFlow must be installed (``pip install tensorflow-cpu``).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from tensorflow.core.protobuf import saver_pb2

v1 = tf.compat.v1


def shapes(fc_width: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's weights by its scope, in TensorFlow's order of axes."""
    return {
        "conv1": (3, 3, 1, 64),
        "conv2": (3, 3, 64, 128),
        "conv3/conv3_1": (3, 3, 128, 256),
        "conv3/conv3_2": (3, 3, 256, 256),
        "conv4/conv4_1": (3, 3, 256, 512),
        "conv4/conv4_2": (3, 3, 512, 512),
        "fc1/fc1_1": (6 * 4 * 512, fc_width),
        "fc1/fc1_2": (fc_width, fc_width),
        "fc2": (fc_width, 128),
    }


def write(path: Path, *, format: str, fc_width: int, seed: int, optimizer: bool) -> None:
    """Write the checkpoint.

    Args:
        path: file (V1) or prefix (V2).
        format: "v1" or "v2".
        fc_width: width of the two large fully connected layers.
        seed: random seed of the weights.
        optimizer: whether to add an optimizer's variables.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(seed)
        weights = []
        with v1.variable_scope("vggish"):
            for scope, shape in shapes(fc_width).items():
                with v1.variable_scope(scope):
                    # This scale keeps the size of activations constant over the layers.
                    initializer = v1.variance_scaling_initializer(2.0)
                    weights.append(v1.get_variable("weights", shape, initializer=initializer))
                    weights.append(
                        v1.get_variable("biases", shape[-1:], initializer=v1.random_normal_initializer(stddev=0.01))
                    )
        if optimizer:
            step = v1.train.get_or_create_global_step()
            loss = v1.add_n([v1.reduce_sum(weight) for weight in weights])
            v1.train.AdamOptimizer().minimize(loss, global_step=step)
        session.run(v1.global_variables_initializer())
        version = saver_pb2.SaverDef.V1 if format == "v1" else saver_pb2.SaverDef.V2
        saver = v1.train.Saver(write_version=version)
        saver.save(session, str(path.absolute()), write_meta_graph=False, write_state=False)


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description="Write a VGGish checkpoint of random weights.")
    parser.add_argument("path", type=Path, help="the file (V1) or the prefix (V2)")
    parser.add_argument("--format", choices=("v1", "v2"), default="v1")
    parser.add_argument("--fc-width", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", action="store_true", help="add Adam's slots and a step counter")
    options = parser.parse_args()
    write(
        options.path,
        format=options.format,
        fc_width=options.fc_width,
        seed=options.seed,
        optimizer=options.optimizer,
    )


if __name__ == "__main__":
    main()
