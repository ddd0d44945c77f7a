"""``vggish-pt report`` as a process."""

from __future__ import annotations

import numpy as np
import pytest
from dump_folders import done, failed, write_folder


@pytest.fixture
def dump(tmp_path, rng):
    inputs = [done(f"sounds/{i}.wav", rng.normal(size=(2, 128)).astype(np.float32)) for i in range(8)]
    write_folder(tmp_path / "dump", [*inputs, failed("bad.wav")])
    return tmp_path / "dump"


def test_a_report(run_cli, dump, tmp_path):
    run = run_cli("report", "dump")
    assert (run.returncode, run.stdout, run.stderr) == (0, "report.html\n", "")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and "complete, 1 failed" in text

    run = run_cli("report", dump)
    assert run.returncode == 1
    assert run.stderr == (
        "vggish-pt: report.html: exists already; choose another output, or allow to overwrite it (--overwrite)\n"
    )
    run = run_cli("report", dump, "--overwrite", "--max-files", 5, "--seed", 3, "--quiet", "--sounds", tmp_path)
    assert (run.returncode, run.stdout) == (0, "")
    assert "5 files, a random sample of 8" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_unfinished_run(run_cli, tmp_path, rng):
    write_folder(tmp_path / "x", [done("a.wav", rng.normal(size=(2, 128)).astype(np.float32))], finish=False)
    run = run_cli("report", "x")
    assert run.returncode == 0
    assert run.stderr.startswith("vggish-pt: warning: x: is not finished (1 of 1 files embedded so far)")
    assert run.stderr.count("\n") == 1
    assert run_cli("report", "x", "--overwrite", "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nothing",), 1, "nothing: holds no embeddings; give a folder or file that 'vggish-pt embed' wrote"),
        (("dump", "--out", "none/x.html"), 1, "none/x.html: cannot be written"),
        (("dump", "--max-files", 0), 2, "--max-files"),
        ((), 2, "FOLDER"),
    ],
)
def test_wrong_usage_is_one_line(run_cli, dump, args, code, message):
    run = run_cli("report", *args)
    assert (run.returncode, run.stdout) == (code, "")
    assert message in run.stderr and run.stderr.count("\n") == 1


def test_a_file_cut_off(run_cli, dump):
    part = dump / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    run = run_cli("report", dump)
    assert run.returncode == 1
    assert f"{part}: cannot be read as embeddings" in run.stderr and run.stderr.count("\n") == 1
