"""Memory that is kept is not asked for again. Counted in page faults, each in a process of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about glibc's malloc")

PROGRAM = """
import resource, sys, torch
from torch.nn import functional as F
from vggish_pt.classify.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
x = torch.randn(4, 32, 96, 64, requires_grad=True)
weight = torch.randn(64, 32, 3, 3, requires_grad=True)
def step():
    F.relu(F.conv2d(x, weight)).square().mean().backward()  # backward runs in a thread of its own
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    kept, count = run.stdout.split()
    return kept, int(count)


def test_kept_memory_is_not_faulted_in_again():
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("no glibc here")
    _, without = faults("leave")
    assert kept == "True"
    assert without > 1000
    assert count < 0.25 * without
