"""What goes past direct convolution on a CPU: Winograd, bfloat16, int8, torch's compiler; speed and what it costs.

    python benchmarks/past_direct.py --weights FOLDER --audio RECORDINGS

The network alone, the same windows through each in turn; ratios are taken within each round. The loss is the lowest and
the median cosine between a window's embedding and that of direct convolution in float32, over windows of recordings
(or of generated sound). int8 is torch's static post-training quantisation: every layer in 8 bits, weights by output
channel, calibrated on other windows of the same recordings.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from common import add_weights_option, find_clips, load_model, print_machine, print_table, spread, write_clips
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt import VGGish
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.nn.network import Network

Run = Callable[[Tensor], Tensor]


class Flatten(nn.Module):
    """(n, channels, height, width) in the order of TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def plain(network: Network) -> nn.Sequential:
    """The network as a chain of modules, which is what quantisation takes."""
    layers: list[nn.Module] = []
    for name, pooled in (
        *(("conv1", True), ("conv2", True), ("conv3_1", False), ("conv3_2", True)),
        *(("conv4_1", False), ("conv4_2", True)),
    ):
        conv = nn.Conv2d(*(getattr(network, name).weight.shape[i] for i in (1, 0)), 3, padding=1)
        conv.load_state_dict(getattr(network, name).state_dict())
        layers += [conv, nn.ReLU(), *([nn.MaxPool2d(2)] if pooled else [])]
    layers += [Flatten(), copy.deepcopy(network.fc1), nn.ReLU(), copy.deepcopy(network.fc2), nn.ReLU()]
    return nn.Sequential(*layers, copy.deepcopy(network.embedding)).eval().to(memory_format=torch.channels_last)


def int8(network: Network, calibration: Tensor) -> Run:
    from torch.ao.quantization import QConfigMapping, get_default_qconfig
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    engines = torch.backends.quantized.supported_engines
    engine = next(name for name in ("onednn", "x86", "fbgemm") if name in engines)
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        mapping = QConfigMapping().set_global(get_default_qconfig(engine))
        prepared = prepare_fx(plain(network), mapping, (calibration[:1, None],))
        for block in calibration.split(16):
            prepared(block[:, None])
        quantised = convert_fx(prepared)
    return blocks(quantised)


def blocks(module: nn.Module, size: int = 16) -> Run:
    """In blocks as large as the package's, so that caches count the same."""

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        return torch.cat([module(block[:, None].contiguous()) for block in x.split(size)])

    return run


def ours(model: VGGish, dtype: torch.dtype, *, winograd: bool) -> Run:
    network = copy.deepcopy(model).to(dtype).network
    network.winograd = winograd
    return lambda x: network.infer(x.to(network.conv1.weight.dtype)).float()


def candidates(model: VGGish, calibration: Tensor) -> dict[str, Run]:
    found = {
        "direct, float32": ours(model, torch.float32, winograd=False),
        "Winograd F(4x4), float32 (default)": ours(model, torch.float32, winograd=True),
        "direct, bfloat16": ours(model, torch.bfloat16, winograd=False),
        "Winograd F(2x4), bfloat16": ours(model, torch.bfloat16, winograd=True),
    }
    others: dict[str, Callable[[], Run]] = {
        "torch.compile, float32": lambda: blocks(torch.compile(plain(model.network))),
        "torch.compile, max-autotune": lambda: blocks(torch.compile(plain(model.network), mode="max-autotune")),
        "int8": lambda: int8(model.network, calibration),
    }
    for name, make in others.items():
        try:
            found[name] = make()
            found[name](calibration[:32])
        except Exception as error:  # a machine without a compiler, a torch without quantisation
            found.pop(name, None)
            print(f"{name}: left out ({type(error).__name__}: {str(error).splitlines()[0][:100]})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_weights_option(parser)
    parser.add_argument("--audio", type=Path, help="recordings; left out: generated sound")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_machine()
    model = load_model(args.weights)
    with TemporaryDirectory() as folder:
        paths = find_clips(args.audio, 2 * args.clips) if args.audio else write_clips(Path(folder), 2 * args.clips, 5.0)
        examples = [model.frontend(load_waveform(path)) for path in paths]
    calibration, checked = torch.cat(examples[1::2]), torch.cat(examples[::2])
    found = candidates(model, calibration[:128])
    batch = checked.repeat(-(-args.batch // len(checked)), 1, 1)[: args.batch]
    exact = found["direct, float32"](checked)
    cosines = {name: F.cosine_similarity(run(checked).double(), exact.double()) for name, run in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(args.rounds + 1):  # the first warms up
        for name in list(found) if number % 2 else list(found)[::-1]:
            start = time.perf_counter()
            found[name](batch)
            if number:
                times[name].append(time.perf_counter() - start)
    base = times["direct, float32"]
    rows = [
        [
            name,
            f"{len(batch) / median(seconds):.0f}",
            spread([b / s for b, s in zip(base, seconds, strict=True)], ".2f"),
            f"{cosines[name].min():.6f}",
            f"{cosines[name].median():.6f}",
        ]
        for name, seconds in times.items()
    ]
    print(f"{len(checked)} windows compared, {len(batch)} in a run, {args.rounds} rounds\n")
    print_table(["", "windows/s", "times direct float32", "lowest cosine", "median"], rows)


if __name__ == "__main__":
    main()
