"""What overlapping windows cost: front end and network against the hop.

    python benchmarks/hops.py [--weights NAME] [--threads N] [--clock cpu]

Front end: a waveform pushed through as embedding does it, in blocks, one thread; each frame is computed once, whatever
the hop (at the smallest hops, most of the time goes into copying windows). Network: every window is computed on its
own. Neighbours share frames, but a convolution's zero padding at a window's edges reaches further inwards with every
layer, and a pool takes pairs of frames counted from the window's start; the last column is the share of the operations
that would remain if everything that neighbours have in common exactly was computed once.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from common import RATE, add_weights_option, load_model, print_machine, print_table, spread
from torch import nn

from vggish_pt import VGGish
from vggish_pt import constants as c
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.bench import generated_sound
from vggish_pt.bench.timing import rounds, threads
from vggish_pt.nn.network import Network
from vggish_pt.nn.streaming import StreamingLogMel
from vggish_pt.nn.windows import hop_frames

_BLOCK = 1 << 17


def push_all(model: VGGish, waveform: np.ndarray, hop: float) -> list[torch.Tensor]:
    """The windows of a waveform, block by block as embedding makes them, each block's in memory of their own."""
    stream = StreamingLogMel(model.frontend, hop)
    pieces = [stream.push(waveform[i : i + _BLOCK]).contiguous() for i in range(0, len(waveform), _BLOCK)]
    return [*pieces, stream.flush().contiguous()]


def remaining(network: Network, hop: int) -> float:
    """Share of a window's operations that remain if exact common parts are computed once.

    Args:
        network: the network.
        hop: frames.
    """
    total, stride, rows, columns, edge = 0.0, 1, c.EXAMPLE_FRAMES, c.MEL_BANDS, 0
    pooled_after = (network.conv1, network.conv2, network.conv3_2, network.conv4_2)
    for layer in network.children():
        if not isinstance(layer, nn.Conv2d):
            total += 2 * layer.weight.numel()
            continue
        edge += 1  # rows at either end that the padding has reached
        # Windows whose starts differ by no multiple of the stride have rows of their own, so that more have to be kept.
        fresh = min(hop // math.gcd(hop, stride), max(0, rows - 2 * edge))
        total += 2 * layer.weight.numel() * columns * (min(rows, 2 * edge) + fresh)
        if layer in pooled_after:
            stride, rows, columns, edge = stride * 2, rows // 2, columns // 2, math.ceil(edge / 2)
    return total / network.operations()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_weights_option(parser)
    parser.add_argument("--hops", type=float, nargs="+", default=[0.96, 0.48, 0.1, 0.01])
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio for the front end (default 60)")
    parser.add_argument("--windows", type=int, default=256, help="for the network (default 256)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for the network")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    clock: Callable[[], float] = time.process_time if args.clock == "cpu" else time.perf_counter

    torch.set_num_threads(args.threads)
    print_machine()
    model = load_model(args.weights)
    samples = load_waveform(generated_sound(args.seconds).T.astype(np.float32), RATE).numpy()
    with threads(1):
        front = rounds(
            {hop: lambda hop=hop: push_all(model, samples, hop) for hop in args.hops},
            0.0,
            least=args.rounds,
            clock=clock,
        )
    needed = {hop: c.EXAMPLE_SAMPLES + (args.windows - 1) * hop_frames(hop) * c.FRAME_HOP for hop in args.hops}
    windows = {
        hop: torch.cat(push_all(model, np.resize(samples, needed[hop]), hop))[: args.windows] for hop in args.hops
    }
    network = rounds(
        {hop: lambda x=x: model.network.infer(x) for hop, x in windows.items()}, 0.0, least=args.rounds, clock=clock
    )

    base = front[args.hops[0]]
    rows = []
    for hop in args.hops:
        per_second = [found / args.seconds * 1e3 for found in front[hop]]
        per_window = [found / args.windows * 1e3 for found in network[hop]]
        whole = median(per_second) * hop + median(per_window)
        rows.append(
            (
                f"{hop:g}",
                spread(per_second, ".3f"),
                spread([a / b for a, b in zip(front[hop], base, strict=True)], ".2f"),
                spread(per_window, ".2f"),
                f"{median(per_window) / hop:.2f}",
                f"{median(per_second) * hop / whole:.1%}",
                f"{remaining(model.network, hop_frames(hop)):.0%}",
            )
        )
    print_table(
        [
            "hop, s",
            "front end, ms per s of audio",
            f"against {args.hops[0]:g}",
            "network, ms per window",
            "network, ms per s of audio",
            "front end, of the whole",
            "operations if shared",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
