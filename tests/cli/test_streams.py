"""Standard streams that are closed or full: the work is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from dump_folders import done, write_folder

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")


@pytest.fixture
def shell(tmp_path):
    def run(redirections, *args):
        code = "import sys; sys.argv[0] = 'vggish-pt'; from vggish_pt.cli import main; main()"
        command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", code, *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in found.stdout + found.stderr and "Exception" not in found.stdout + found.stderr
        return found

    return run


@pytest.mark.parametrize(
    "redirections", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"]
)
def test_a_report_is_written(shell, tmp_path, redirections):
    write_folder(tmp_path / "x", [done("a.wav", np.ones((2, 128), np.float32))], finish=False)  # which gives a warning
    run = shell(redirections, "report", "x")
    assert run.returncode == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    if "2>" not in redirections:
        assert "x: is not finished" in run.stderr


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", "2>/dev/full"])
def test_embeddings_are_written(shell, tmp_path, small_folder, redirections):
    (tmp_path / "bad.wav").write_bytes(b"none")
    run = shell(
        redirections, "embed", REPOSITORY / "examples" / "clips", "bad.wav", "--weights", small_folder, "--out", "x"
    )
    assert (run.returncode, run.stdout, run.stderr) == (3, "", "")
    assert pq.read_table(tmp_path / "x").num_rows > 0
    assert pq.read_table(tmp_path / "x" / "_errors.parquet")["path"].to_pylist() == ["bad.wav"]


def test_output_that_cannot_be_written_is_one_line(shell):
    run = shell(">/dev/full", "weights", "list")
    assert (run.returncode, run.stderr) == (
        1,
        "vggish-pt: standard output: cannot be written (No space left on device)\n",
    )
