"""vggish_pt beside other implementations of VGGish: the same weights, the same audio, in turn.

    python benchmarks/compare_peers.py --python torchvggish=ENV/bin/python --python tensorflow=ENV/bin/python \
        --python onnxruntime=ENV/bin/python --python torchaudio=ENV/bin/python

Each implementation runs in a process of its own with the interpreter given; one that is not given, or cannot be
imported there, is left out. What the environments need: `torchvggish==0.2 torch soundfile`,
`tensorflow-cpu`, `onnx onnxruntime`, `torch==2.8.0 torchaudio==2.8.0 soundfile`.

First all outputs are compared, and nothing is timed if they differ by more than the bounds below. Then rounds go
through all implementations in turn, backwards every other time; ratios are taken within each round. Figures are medians
with the smallest and largest. `--clock cpu --threads 1` measures processor time, which other work on the machine
hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import add_weights_option, find_clips, load_model, print_machine, print_table, spread, write_clips

from vggish_pt import compat
from vggish_pt.audio.waveform import load_waveform
from vggish_pt.errors import VGGishError
from vggish_pt.nn.frontend import LogMel

OURS = {
    "ours-torch": "ours, torch's own kernels",
    "ours-direct": "ours, oneDNN",
    "ours": "ours (default)",
    "ours-bf16": "ours, bf16",
}
THEIRS = {
    "torchvggish": "torchvggish",
    "torchaudio": "torchaudio",
    "tensorflow": "TensorFlow",
    "tensorflow-frozen": "TensorFlow, frozen graph",
    "onnxruntime": "ONNX Runtime",
}
LABELS = THEIRS | OURS
WITH_RELU = ("torchvggish", "torchaudio")  # after the last layer; compared after a ReLU on both sides
SECTIONS = ("network", "frontend", "files", "start")

# Largest differences that pass. Embeddings: relative to the largest value. log-mel: absolute.
NETWORK_BOUND = 1e-4
BF16_COSINE = 0.9999
LOG_MEL_BOUND = {"torchvggish": 1e-6, "ours": 1e-6, "ours float32": 1e-2, "torchaudio": 1e-2}
FILES_BOUND = 1e-4  # torchvggish against ours with resampy
CHECKED = 64


class Peer:
    """An implementation in its process."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        self.label = LABELS[name]
        counts = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peer.py")), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **counts},
            text=True,
        )
        self.offers: list[str] = []

    def ask(self, do: str, **request: object) -> dict:
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def begin(self, folder: Path) -> str:
        answer = self.ask("load_library")
        self.offers = answer["offers"]
        self.ask("load_weights", folder=str(folder))
        return answer["versions"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Material:
    """Weights, examples, waveform and files, as files."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder = folder
        model = load_model(args.weights)
        self.operations = model.network.operations()
        model.save_pretrained(folder / "model")
        state = compat.vggish(weights=folder / "model", postprocess=False).state_dict()
        state = {name: tensor.contiguous() for name, tensor in state.items()}
        torch.save(state, folder / "weights.pth")
        np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in state.items()})
        (folder / "clips").mkdir()
        self.files = find_clips(args.audio, args.clips) if args.audio else write_clips(folder / "clips", args.clips, 5)
        waveforms = [load_waveform(path) for path in self.files]
        self.seconds = sum(map(len, waveforms)) / 16_000
        examples = torch.cat([LogMel()(waveform) for waveform in waveforms])
        self.windows = max(args.batches)
        repeated = examples.repeat(-(-max(self.windows, CHECKED) // len(examples)), 1, 1)
        self.examples = self._save("examples", repeated[: self.windows].numpy())
        self.checked = self._save("checked", repeated[:CHECKED].numpy())
        waveform = torch.cat(waveforms)[: 60 * 16_000].numpy()
        self.waveform, self.waveform_seconds = self._save("waveform", waveform), len(waveform) / 16_000
        self.long = write_clips(folder, 1, args.minutes * 60)
        (folder / "wav").mkdir()
        self.wav = write_clips(folder / "wav", 4, 5)  # torchvggish rounds what it reads to 16 bits, as these have

    def _save(self, name: str, array: np.ndarray) -> str:
        path = self.folder / f"{name}.npy"
        np.save(path, np.ascontiguousarray(array))
        return str(path)


def take_turns(runs: dict, rounds: int, clock: str) -> dict:
    """Key → (peer, request) to key → one answer for each round."""
    for peer, request in runs.values():  # warm up
        peer.ask(**request)
    answers = {key: [] for key in runs}
    for number in range(rounds):
        for key in list(runs)[:: 1 if number % 2 == 0 else -1]:
            peer, request = runs[key]
            time.sleep(0.25)  # until the last one's threads have stopped waiting for work
            answer = peer.ask(**request)
            answers[key].append({**answer, "seconds": max(answer[clock], 1e-9)})
    return answers


def rates(answers: list[dict], amount: float) -> list[float]:
    return [amount / answer["seconds"] for answer in answers]


def ratios(ours: list[float], theirs: list[float]) -> str:
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], ".2f")


def check(peers: dict[str, Peer], material: Material) -> None:
    """Compares all outputs; ends the program where they are not the same."""
    out = str(material.folder / "out.npy")

    def outputs(peer: Peer, do: str, **request: object) -> np.ndarray:
        peer.ask(do, out=out, **request)
        return np.load(out, allow_pickle=False)

    rows, passed = [], True

    def compare(what: str, name: str, found: np.ndarray, expected: np.ndarray, bound: float, unit: float = 1.0) -> None:
        nonlocal passed
        same = found.shape == expected.shape
        difference = float(np.abs(found - expected).max()) / unit if same else float("inf")
        passed = passed and difference <= bound
        rows.append((what, name, f"{difference:.1e}", f"{bound:.0e}"))

    exact = outputs(peers["ours-torch"], "network", examples=material.checked, batch=CHECKED)
    for name, peer in peers.items():
        found = outputs(peer, "network", examples=material.checked, batch=CHECKED)
        if name == "ours-bf16":
            norms = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
            cosines = (found * exact).sum(axis=1) / norms
            passed = passed and float(cosines.min()) >= BF16_COSINE
            text = f"cosine lowest {cosines.min():.6f}, median {np.median(cosines):.6f}"
            rows.append(("network", peer.label, text, BF16_COSINE))
            continue
        expected = np.maximum(exact, 0) if name in WITH_RELU else exact
        compare("network", peer.label, found, expected, NETWORK_BOUND, float(np.abs(expected).max()))
    log_mel = outputs(peers["ours"], "front_end", waveform=material.waveform)
    for name, peer, options in front_ends(peers):
        found = outputs(peer, "front_end", waveform=material.waveform, **options)
        compare("log-mel", name, found, log_mel, LOG_MEL_BOUND[name])
    if "torchvggish" in peers:
        options = {"resampler": "resampy"}
        ours = np.maximum(outputs(peers["ours"], "files", files=material.wav, options=options), 0)
        found = outputs(peers["torchvggish"], "files", files=material.wav)
        compare("files, resampy", "torchvggish", found, ours, FILES_BOUND, float(ours.max()))
    print("## Are the outputs the same?\n")
    print("Against vggish_pt with torch's own kernels and float64; network and files relative to the largest value.\n")
    print_table(["what", "implementation", "largest difference", "bound"], rows)
    if not passed:
        sys.exit("outputs differ by more than the bound: nothing is timed")


def front_ends(peers: dict[str, Peer]) -> list[tuple[str, Peer, dict]]:
    found = [(name, peers[name], {}) for name in ("torchvggish", "torchaudio") if name in peers]
    return [
        *found,
        ("ours", peers["ours"], {}),
        ("ours float32", peers["ours"], {"options": {"precision": "float32"}}),
    ]


def network(peers: dict[str, Peer], material: Material, args: argparse.Namespace) -> None:
    tops: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for precision, found in peers["ours"].ask("peak", clock=args.clock).items():
            if precision != "process":
                tops.setdefault(precision, []).append(found)
    peak = {precision: np.max(found, axis=0) for precision, found in tops.items()}
    print("## Network\n")
    print_table(
        ["measured peak, GFLOP/s", "matrix product", "best convolution"],
        [(precision, *(f"{value / 1e9:.0f}" for value in found)) for precision, found in peak.items()],
    )
    runs = {
        (name, batch): (peer, {"do": "network", "examples": material.examples, "batch": batch})
        for batch in args.batches
        for name, peer in peers.items()
    }
    found = {key: rates(a, material.windows) for key, a in take_turns(runs, args.rounds, args.clock).items()}
    best = {name: max((found[name, batch] for batch in args.batches), key=median) for name in peers}
    print(
        f"Windows per second, {material.windows} windows in each run; a window is {material.operations / 1e9:.3f} GFLOP"
    )
    print("computed directly (Winograd's convolutions need fewer, so its share may be above 100 %).\n")
    rows = []
    for name, peer in peers.items():
        top = max(peak["bf16" if name == "ours-bf16" else "fp32"])
        share = f"{median(best[name]) * material.operations / top:.0%}"
        rows.append((peer.label, *(spread(found[name, batch]) for batch in args.batches), share))
    print_table(["implementation", *(f"batch {batch}" for batch in args.batches), "best, of the peak"], rows)
    print_ratios("At its best batch, how many times as fast as the other at its best", best, peers)


def print_ratios(title: str, found: dict[str, list[float]], peers: dict[str, Peer]) -> None:
    ours = [name for name in OURS if name in found]
    others = [name for name in found if name not in OURS] + ours[:1] + [name for name in ours[1:] if name == "ours"]
    print(f"{title}:\n")
    print_table(
        ["", *(peers[name].label for name in others)],
        [(peers[name].label, *(ratios(found[name], found[other]) for other in others)) for name in ours],
    )


def front_end(peers: dict[str, Peer], material: Material, args: argparse.Namespace) -> float:
    """Returns the processor time of our default front end for a second of audio."""
    repeat = 5
    sound = material.waveform_seconds * repeat
    runs = {
        name: (peer, {"do": "front_end", "waveform": material.waveform, "repeat": repeat, **options})
        for name, peer, options in front_ends(peers)
    }
    answers = take_turns(runs, args.rounds, args.clock)
    found = {name: rates(answer, sound) for name, answer in answers.items()}
    print("## Front end\n")
    print("Waveform at 16 kHz to log-mel windows; ours by default in float64, like torchvggish's.\n")
    print_table(
        ["implementation", "times real time", "our default, times as fast"],
        [(name, spread(values), ratios(found["ours"], values)) for name, values in found.items()],
    )
    return median(answer["cpu"] for answer in answers["ours"]) / sound


def files(peers: dict[str, Peer], material: Material, args: argparse.Namespace, front: float | None) -> None:
    used = {name: peer for name, peer in peers.items() if "files" in peer.offers and name != "ours-torch"}
    runs = {name: (peer, {"do": "files", "files": material.files}) for name, peer in used.items()}
    answers = take_turns(runs, args.rounds, args.clock)
    found = {name: rates(answer, material.seconds) for name, answer in answers.items()}
    print("## Files to embeddings\n")
    print(
        f"{len(material.files)} files, {material.seconds:.0f} s of audio. torchvggish resamples with resampy, "
        "torchaudio with its own\nresampler, ours with soxr (the default of each).\n"
    )
    rows = []
    for name, peer in used.items():
        cpu = median(answer["cpu"] for answer in answers[name]) / material.seconds
        share = f"{front / cpu:.1%}" if front and name in OURS else ""
        rows.append((peer.label, spread(found[name]), f"{cpu * 1000:.2f}", share))
    print_table(["implementation", "times real time", "processor ms per s of audio", "of it our front end"], rows)
    print_ratios("How many times as fast", found, peers)


def start(pythons: dict[str, str], material: Material, args: argparse.Namespace) -> None:
    """Fresh processes: how long until the first embedding, and how much memory."""
    largest = max(args.batches)
    found: dict[str, list[list[float]]] = {name: [] for name in pythons}
    for _ in range(args.starts):
        for name, python in pythons.items():
            time.sleep(0.25)
            figures, last = [], time.perf_counter()
            spent = 0.0
            peer = Peer(name, python, args.threads)
            steps = [
                {"do": "load_library"},
                {"do": "load_weights", "folder": str(material.folder)},
                {"do": "network", "examples": material.checked, "batch": 1, "first": 1},
            ]
            for request in steps:
                answer = peer.ask(**request)
                now = time.perf_counter()
                figures.append(answer["process"] - spent if args.clock == "cpu" else now - last)
                last, spent = now, answer["process"]
                peer.offers = answer.get("offers", peer.offers)
            figures.append(peer.ask("memory", forget=True).get("now", float("nan")))
            peer.ask("network", examples=material.examples, batch=largest)
            figures.append(peer.ask("memory", forget=True).get("peak", float("nan")))
            if "files" in peer.offers:
                peer.ask("files", files=material.long)
                figures.append(peer.ask("memory").get("peak", float("nan")))
            else:
                figures.append(float("nan"))
            peer.close()
            found[name].append(figures)
    print("## Start and memory\n")
    print(f"Fresh processes, {args.starts} of each. The long file is {args.minutes:g} min at 44.1 kHz.\n")
    rows = []
    for name in pythons:
        columns = list(zip(*found[name], strict=True))
        total = [sum(column) for column in zip(*columns[:3], strict=True)]
        cells = [spread(column, ".2f") for column in (*columns[:3], total)]
        cells += ["" if np.isnan(column[0]) else spread(column) for column in columns[3:]]
        rows.append((LABELS[name], *cells))
    header = ["import, s", "weights, s", "first window, s", "together, s", "MB loaded", f"MB at batch {largest}"]
    print_table(["implementation", *header, "MB with the long file"], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="a peer's interpreter")
    add_weights_option(parser)
    parser.add_argument("--audio", type=Path, help="folder of audio files; left out: generated 5 s WAV at 44.1 kHz")
    parser.add_argument("--clips", type=int, default=100, help="how many files (default 100)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the long file (default 10)")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--ours", nargs="+", choices=list(OURS), default=list(OURS))
    return parser.parse_args()


def main() -> None:
    args = parse()
    pythons = dict(value.split("=", 1) for value in args.python)
    known = sorted({name.partition("-")[0] for name in THEIRS})
    if unknown := sorted(set(pythons) - set(known)):
        sys.exit(f"no such implementation: {', '.join(unknown)} (there are {', '.join(known)})")
    interpreters = {name: pythons.get(name.partition("-")[0]) for name in THEIRS} | dict.fromkeys(OURS, sys.executable)
    torch.set_num_threads(args.threads)
    print_machine()
    print(f"Measured with {args.threads} threads, in {'processor' if args.clock == 'cpu' else 'wall-clock'} time.\n")
    with TemporaryDirectory() as folder:
        material = Material(Path(folder), args)
        peers: dict[str, Peer] = {}
        needed = {"ours-torch", "ours"}  # what all others are compared with
        for name in [*THEIRS, *(name for name in OURS if name in needed | set(args.ours))]:
            python = interpreters[name]
            if python is None:
                print(f"- {LABELS[name]}: left out, as no interpreter was given (--python)")
                continue
            try:
                peer = Peer(name, python, args.threads)
                print(f"- {peer.label}: {peer.begin(material.folder)}", flush=True)
                peers[name] = peer
            except (OSError, RuntimeError, VGGishError) as error:
                if name in OURS:
                    raise
                print(f"- {LABELS[name]}: left out ({error})")
        print()
        check(peers, material)
        front = None
        if "network" in args.sections:
            network(peers, material, args)
        if "frontend" in args.sections:
            front = front_end(peers, material, args)
        if "files" in args.sections:
            files(peers, material, args, front)
        for peer in peers.values():
            peer.close()
        if "start" in args.sections:
            left_out = ("ours-torch", "ours-direct", "tensorflow-frozen")  # as the others, or slow to make
            start({name: interpreters[name] for name in peers if name not in left_out}, material, args)


if __name__ == "__main__":
    main()
