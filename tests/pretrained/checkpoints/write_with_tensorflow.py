"""Writes one small checkpoint with TensorFlow in both formats, and what TensorFlow reads from each.

    python write_with_tensorflow.py FOLDER

leaves in FOLDER ``small_v1.ckpt``, ``small_v2.ckpt.*`` and, for each, an ``.npz`` of the values that TensorFlow reads
and a ``.json`` of all variables' shapes and types. The folder ``data`` beside this script was made so.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saver_pb2

v1 = tf.compat.v1


def build() -> None:
    normal = v1.random_normal_initializer(seed=7)
    with v1.variable_scope("net"):
        x = v1.get_variable("plain", (5, 7), initializer=normal)
        v1.get_variable("scalar", (), initializer=normal)
        v1.get_variable("empty", (0, 3), initializer=v1.zeros_initializer())
        v1.get_variable("half", (3, 5), tf.float16, initializer=normal)
        v1.get_variable("double", (4,), tf.float64, initializer=normal)
        v1.get_variable("wide", (70, 3), initializer=normal)
    v1.get_variable("rows", (7, 3), initializer=normal, partitioner=v1.fixed_size_partitioner(3))
    v1.get_variable("columns", (2, 200), initializer=normal, partitioner=v1.fixed_size_partitioner(2, axis=1))
    v1.get_variable("int32", (3,), tf.int32, initializer=v1.constant_initializer([-1, 0, 2**31 - 1]))
    v1.get_variable("int64", (3,), tf.int64, initializer=v1.constant_initializer([-(2**63), 300, 2**62]))
    v1.get_variable("uint8", (3,), tf.uint8, initializer=v1.constant_initializer([0, 127, 255]))
    v1.get_variable("bool", (3,), tf.bool, initializer=v1.constant_initializer([True, False, True]))
    v1.get_variable("string", (), tf.string, initializer=v1.constant_initializer("text"))
    v1.train.get_or_create_global_step()
    loss = v1.reduce_sum(x * x)
    v1.train.AdamOptimizer().minimize(loss, var_list=[x])
    v1.train.MomentumOptimizer(0.1, 0.9).minimize(loss, var_list=[x])


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"small_v1.ckpt": saver_pb2.SaverDef.V1, "small_v2.ckpt": saver_pb2.SaverDef.V2}
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        session.run(v1.global_variables_initializer())
        for name, version in versions.items():
            saver = v1.train.Saver(write_version=version)
            saver.save(session, str(folder / name), write_meta_graph=False, write_state=False)
    for name in versions:
        reader = tf.train.load_checkpoint(str(folder / name))
        shapes = reader.get_variable_to_shape_map()
        types = {key: dtype.name for key, dtype in reader.get_variable_to_dtype_map().items()}
        described = {key: [shapes[key], types[key]] for key in sorted(shapes)}
        (folder / f"{name}.json").write_text(json.dumps(described, indent=0) + "\n")
        values = {}
        for key in shapes:
            # TensorFlow's own reader lacks some types in V1 files, whose values are those of the V2 file.
            with contextlib.suppress(tf.errors.UnimplementedError):
                if types[key] != "string":
                    values[key.replace("/", "|")] = reader.get_tensor(key)
        np.savez(folder / f"{name}.npz", **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
