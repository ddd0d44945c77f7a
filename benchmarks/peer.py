"""One implementation of VGGish in a process of its own, for compare_peers.py.

    python benchmarks/peer.py NAME THREADS

runs under the implementation's own interpreter, which needs none of the others. It takes requests on standard input and
answers on standard output, a JSON object on a line each. Everything heavy is imported on request, so that it can be
timed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

LAYERS = ("features.0", "features.3", "features.6", "features.8", "features.11", "features.13")
POOLED = ("features.0", "features.3", "features.8", "features.13")
MATRICES = ("embeddings.0", "embeddings.2", "embeddings.4")


class Ours:
    """vggish_pt. Variants: -direct (no Winograd), -torch (torch's own kernels), -bf16."""

    def __init__(self, threads, variant=""):
        import torch

        import vggish_pt
        from vggish_pt.nn.frontend import LogMel

        torch.set_num_threads(threads)
        self.torch, self.package, self.variant = torch, vggish_pt, variant
        self.front_ends = {"float64": LogMel(torch.float64), "float32": LogMel(torch.float32)}
        self.versions = f"vggish_pt {vggish_pt.__version__}, torch {torch.__version__}"

    def load(self, folder):
        self.model = self.package.VGGish.from_pretrained(folder / "model")
        self.model.network.winograd = self.variant != "direct"
        if self.variant == "torch":
            from vggish_pt.nn import kernels, network

            network.inference_kernels = lambda _layers: kernels.TORCH_KERNELS
        if self.variant == "bf16":
            self.model.to(self.torch.bfloat16)

    def network(self, examples):
        network = self.model.network
        return network.infer(self.torch.from_numpy(examples).to(network.conv1.weight.dtype)).float().numpy()

    def front_end(self, waveform, precision="float64"):
        return self.front_ends[precision](self.torch.from_numpy(waveform)).numpy()

    def files(self, paths, resampler="soxr", batch_size=None):
        results = list(self.model.embed_iter(paths, resampler=resampler, batch_size=batch_size))
        return self.torch.cat([result.values for result in results]).numpy()


class Torchvggish:
    """torchvggish 0.2 as its users call it, in torch.no_grad(): without it, it also needs the memory of gradients."""

    def __init__(self, threads):
        import torch
        from torchvggish import torchvggish, vggish_input

        torch.set_num_threads(threads)
        self.torch, self.module, self.input = torch, torchvggish, vggish_input
        self.versions = f"torchvggish {version('torchvggish')}, torch {torch.__version__}"

    def load(self, folder):
        tensors = self.torch.load(folder / "weights.pth", weights_only=True)
        self.module.hub.load_state_dict_from_url = lambda *_, **__: tensors
        self.model = self.module.vggish(postprocess=False).eval()

    def network(self, examples):
        with self.torch.no_grad():
            return self.model(self.torch.from_numpy(examples)[:, None]).numpy()

    def front_end(self, waveform):
        return self.input.waveform_to_examples(waveform, 16_000, return_tensor=False)

    def files(self, paths):
        with self.torch.no_grad():
            parts = [self.model(self.input.wavfile_to_examples(path)) for path in paths]
        return self.torch.cat(parts).numpy()


class Torchaudio:
    """torchaudio's VGGISH pipeline, which is in 2.8 and before."""

    def __init__(self, threads):
        import warnings

        warnings.simplefilter("ignore")
        import torch
        import torchaudio
        from torchaudio.prototype.pipelines import VGGISH

        torch.set_num_threads(threads)
        self.torch, self.torchaudio, self.bundle = torch, torchaudio, VGGISH
        self.processor = VGGISH.get_input_processor()
        self.versions = f"torchaudio {torchaudio.__version__}, torch {torch.__version__}"

    def load(self, folder):
        tensors = self.torch.load(folder / "weights.pth", weights_only=True)
        names = {"features": "features_network", "embeddings": "embedding_network"}
        renamed = {names[(parts := name.split(".", 1))[0]] + "." + parts[1]: t for name, t in tensors.items()}
        self.model = self.bundle.VGGish()
        self.model.load_state_dict(renamed)
        self.model.eval()

    def network(self, examples):
        with self.torch.inference_mode():
            return self.model(self.torch.from_numpy(examples)[:, None]).numpy()

    def front_end(self, waveform):
        return self.processor(self.torch.from_numpy(waveform).float())[:, 0].numpy()

    def files(self, paths):
        parts = []
        with self.torch.inference_mode():
            for path in paths:
                waveform, rate = self.torchaudio.load(path)
                mono = self.torchaudio.functional.resample(waveform.mean(0), rate, self.bundle.sample_rate)
                parts.append(self.model(self.processor(mono)))
        return self.torch.cat(parts).numpy()


class TensorFlow:
    """The network in TensorFlow's operations, compiled into a graph. Variant -frozen: the weights are part of it."""

    def __init__(self, threads, variant=""):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf, self.variant = tf, variant
        self.versions = f"tensorflow {tf.__version__}"

    def load(self, folder):
        tf = self.tf
        # TensorFlow's order of axes: the other way round.
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
        weights = {name: w.transpose(axes[w.ndim]) for name, w in read_npz(folder / "weights.npz").items()}
        if self.variant != "frozen":
            weights = {name: tf.constant(value) for name, value in weights.items()}

        @tf.function(input_signature=[tf.TensorSpec((None, 96, 64), tf.float32)])
        def network(examples):
            x = examples[..., tf.newaxis]
            for name in LAYERS:
                x = tf.nn.conv2d(x, weights[f"{name}.weight"], strides=1, padding="SAME")
                x = tf.nn.relu(tf.nn.bias_add(x, weights[f"{name}.bias"]))
                if name in POOLED:
                    x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="SAME")
            x = tf.reshape(x, (-1, 12288))
            for name in MATRICES:
                x = tf.nn.bias_add(tf.matmul(x, weights[f"{name}.weight"]), weights[f"{name}.bias"])
                if name != MATRICES[-1]:
                    x = tf.nn.relu(x)
            return x

        self.graph = network.get_concrete_function()

    def network(self, examples):
        return self.graph(self.tf.constant(examples)).numpy()


class OnnxRuntime:
    """The network as an ONNX model in ONNX Runtime."""

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime, self.threads = onnxruntime, threads
        self.versions = f"onnxruntime {onnxruntime.__version__}"

    def load(self, folder):
        path = folder / "network.onnx"
        if not path.exists():
            path.write_bytes(onnx_model(read_npz(folder / "weights.npz")))
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that wait for work by spinning would slow down whoever is measured next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.threads > 1 else "0")
        self.session = self.onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def network(self, examples):
        return self.session.run(None, {"examples": examples[:, None]})[0]


def onnx_model(weights):
    from onnx import TensorProto, helper, numpy_helper

    nodes, x = [], "examples"

    def add(operation, *inputs, **attributes):
        output = f"x{len(nodes)}"
        nodes.append(helper.make_node(operation, [x, *inputs], [output], **attributes))
        return output

    for name in LAYERS:
        x = add("Conv", f"{name}.weight", f"{name}.bias", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = add("Relu")
        if name in POOLED:
            x = add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    x = add("Transpose", perm=[0, 2, 3, 1])
    x = add("Flatten")
    for name in MATRICES:
        x = add("Gemm", f"{name}.weight", f"{name}.bias", transB=1)
        if name != MATRICES[-1]:
            x = add("Relu")
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    given = helper.make_tensor_value_info("examples", TensorProto.FLOAT, ["n", 1, 96, 64])
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", 128])
    graph = helper.make_graph(nodes, "vggish", [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def read_npz(path):
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def version(distribution):
    from importlib.metadata import version

    return version(distribution)


PEERS = {
    "ours": Ours,
    "torchvggish": Torchvggish,
    "torchaudio": Torchaudio,
    "tensorflow": TensorFlow,
    "onnxruntime": OnnxRuntime,
}


def memory():
    """Megabytes of memory now and at most, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {"now": int(found["VmRSS"].split()[0]) / 1024, "peak": int(found["VmHWM"].split()[0]) / 1024}


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew from what is used now


class Server:
    """Answers requests; arrays lie in .npy files and are read once."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        self.arrays = {}

    def array(self, path):
        import numpy as np

        if path not in self.arrays:
            self.arrays[path] = np.load(path, allow_pickle=False)
        return self.arrays[path]

    def load_library(self, _request):
        kind, _, variant = self.name.partition("-")
        self.peer = PEERS[kind](self.threads, *filter(None, [variant]))
        offers = [what for what in ("network", "front_end", "files") if hasattr(self.peer, what)]
        return {"versions": f"{self.peer.versions}, Python {platform.python_version()}", "offers": offers}

    def load_weights(self, request):
        self.peer.load(Path(request["folder"]))

    def network(self, request):
        examples, batch = self.array(request["examples"])[: request.get("first")], request["batch"]
        starts = range(0, len(examples), batch)
        return self.timed(request, lambda: [self.peer.network(examples[i : i + batch]) for i in starts])

    def front_end(self, request):
        waveform, options = self.array(request["waveform"]), request.get("options", {})
        repeats = range(request.get("repeat", 1))
        return self.timed(request, lambda: [self.peer.front_end(waveform, **options) for _ in repeats])

    def files(self, request):
        options = request.get("options", {})
        return self.timed(request, lambda: [self.peer.files(request["files"], **options)])

    def peak(self, request):
        import torch

        from vggish_pt.bench.machine import peak

        clock = time.process_time if request["clock"] == "cpu" else time.perf_counter
        types = {"fp32": torch.float32, "bf16": torch.bfloat16}
        return {name: peak(dtype, clock=clock) for name, dtype in types.items()}

    def memory(self, request):
        found = memory()
        if request.get("forget") and found:
            forget_peak()
        return found

    @staticmethod
    def timed(request, run):
        wall, cpu = time.perf_counter(), time.process_time()
        parts = run()
        answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if "out" in request:
            import numpy as np

            np.save(request["out"], np.concatenate(parts))
        return answer


def main():
    # Whatever a library prints goes to standard error, not among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request["do"])(request) or {}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["process"] = time.process_time()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
