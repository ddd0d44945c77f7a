"""How long until the first embedding, and how much memory it takes.

    python benchmarks/startup.py [--weights NAME] [--threads N]

Each row runs in fresh processes, in turn, with the files in the system's cache; medians with the smallest and largest.
Times include Python's own start. Memory is that of the process (resident), as Linux tells it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from common import add_weights_option, load_model, print_machine, print_table, spread, write_clips

_HEAD = "import sys, torch; from vggish_pt import VGGish; m = VGGish.from_pretrained(sys.argv[1])\n"
_MEMORY = (
    "from pathlib import Path\n"
    "def memory(of):\n"
    "    text = Path('/proc/self/status').read_text()\n"
    "    return round(int(text.split(of + ':')[1].split()[0]) / 1024)\n"
)
# Name → code; arguments are the model folder, a clip, and a path to write to.
TIMES = {
    "python -c pass": "pass",
    "import torch": "import torch",
    "import vggish_pt": "import vggish_pt",
    "vggish-pt --help": "import sys; sys.argv = ['vggish-pt', '--help']; from vggish_pt.cli import main; main()",
    "weights loaded": _HEAD,
    "first embedding, 5 s clip": _HEAD + "m.embed(sys.argv[2])",
    "vggish-pt embed, 5 s clip": (
        "import sys; from vggish_pt.cli import main\n"
        "sys.argv = ['vggish-pt', 'embed', sys.argv[2], '--weights', sys.argv[1], '--out', sys.argv[3], '--overwrite',"
        " '--quiet']; main()"
    ),
}
MEMORY = {
    "import torch": "import torch; print(memory('VmHWM'))",
    "weights loaded, untouched": _HEAD + "print(memory('VmRSS'))",
    "weights loaded and read": _HEAD + "[p.sum() for p in m.parameters()]; print(memory('VmRSS'))",
    "first embedding": _HEAD + "m.embed(sys.argv[2]); print(memory('VmHWM'))",
}


def run(code: str, folder: Path, clip: str, count: int) -> tuple[float, str]:
    """Seconds, and what was printed."""
    command = [sys.executable, "-c", code, str(folder / "model"), clip, str(folder / "out.npy")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    time.sleep(0.1)
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_weights_option(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 256, 1024])
    args = parser.parse_args()
    print_machine()
    with TemporaryDirectory() as name:
        folder = Path(name)
        load_model(args.weights).save_pretrained(folder / "model")
        (clip,) = write_clips(folder, 1, 5)
        times: dict[str, list[float]] = {what: [] for what in TIMES}
        for _ in range(args.runs + 1):
            for what, code in TIMES.items():
                times[what].append(run(code, folder, clip, args.threads)[0])
        print_table(["fresh process", "seconds"], [(what, spread(found[1:], ".3f")) for what, found in times.items()])
        if not Path("/proc/self/status").exists():
            return
        memory = dict(MEMORY)
        for batch in args.batches:
            for precision, cast in (("fp32", ""), ("bf16", "m.to(torch.bfloat16)\n")):
                memory[f"embedded, batch {batch}, {precision}"] = (
                    _HEAD + cast + f"m.embed([sys.argv[2]] * {-(-batch // 5)}, batch_size={batch})\n"
                    "print(memory('VmHWM'))"
                )
        rows = []
        for what, code in memory.items():
            found = [float(run(_MEMORY + code, folder, clip, args.threads)[1]) for _ in range(min(3, args.runs))]
            rows.append((what, f"{median(found):.0f}"))
        print_table(["memory at most", "MB"], rows)


if __name__ == "__main__":
    main()
