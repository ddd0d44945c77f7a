"""torch.hub.load on the repository."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import REPOSITORY


def test_load_and_run(small_folder, tmp_path):
    """In another folder, without the package on the path: the hub finds it in the repository."""
    script = """
import sys, numpy as np, torch
model = torch.hub.load(sys.argv[1], "vggish", source="local", weights=sys.argv[2], device="cpu")
print(tuple(model(np.zeros(40_000), fs=16_000).shape))
model = torch.hub.load(
    sys.argv[1], "vggish", source="local", weights=sys.argv[2], device="cpu", preprocess=False, postprocess=False
)
print(tuple(model(torch.zeros(3, 1, 96, 64)).shape))
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", script, str(REPOSITORY), str(small_folder)],
        cwd=tmp_path,
        env={**environment, "TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == ["(2, 128)", "(3, 128)"]
