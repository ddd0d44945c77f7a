"""A training step on the CPU, with freed memory kept and given back: the network with gradients, in float32 and bf16.

    python benchmarks/train_step.py [--windows 64] [--steps 5] [--rounds 3]

Each figure comes from a process of its own; both ways take turns. A page fault is a page of memory (4 KiB) that the
system had to clear and hand out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

from common import print_machine, print_table, spread

PROGRAM = """
import json, resource, sys, time
from vggish_pt.classify.training.memory import keep_freed_memory
way, precision, windows, steps, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
if way == "kept" and not keep_freed_memory():
    sys.exit("freed memory cannot be kept on this system")
import torch
from vggish_pt.nn.network import Network
torch.manual_seed(0)
if threads:
    torch.set_num_threads(threads)
network = Network(256).train()
optimizer = torch.optim.AdamW(network.parameters())
examples, labels = torch.randn(windows, 96, 64), torch.randint(128, (windows,))
def step():
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        embeddings = network(examples)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(embeddings.float(), labels).backward()
    optimizer.step()
for _ in range(3):
    step()
faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
for _ in range(steps):
    step()
seconds = (time.perf_counter() - began) / steps
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": seconds, "faults": (usage.ru_minflt - faults) / steps, "peak": usage.ru_maxrss / 2**20}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=64, help="in a step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    args = parser.parse_args()
    print_machine()
    rows = []
    for precision in ("fp32", "bf16"):
        runs: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
        for _ in range(args.rounds):
            for way, found in runs.items():
                numbers = map(str, (args.windows, args.steps, args.threads))
                command = [sys.executable, "-c", PROGRAM, way, precision, *numbers]
                found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        pairs = zip(*runs.values(), strict=True)
        ratio = spread([before["seconds"] / after["seconds"] for before, after in pairs], ".2f")
        for way, found in runs.items():
            figures = {name: median(run[name] for run in found) for name in found[0]}
            rate, faults = args.windows / figures["seconds"], f"{figures['faults']:,.0f}"
            beside = ratio if way == "kept" else ""
            rows.append([precision, way, f"{rate:.0f}", faults, f"{figures['peak']:.1f}", beside])
    print_table(["precision", "freed memory", "windows/s", "page faults in a step", "peak, GiB", "times as fast"], rows)


if __name__ == "__main__":
    main()
