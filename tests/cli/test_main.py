"""The command line as a whole: help, version, wrong usage, and how little it imports for these."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vggish_pt import __version__

HEAVY = ["torch", "numpy", "pyarrow", "soundfile", "soxr", "safetensors", "huggingface_hub", "pooch", "sklearn"]


def _imported(*args: str) -> tuple[int, str]:
    """Exit code, and which heavy libraries were imported."""
    code = (
        "import contextlib, io, sys\n"
        f"sys.argv = ['vggish-pt', *{args!r}]\n"
        "from vggish_pt.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    try: main()\n"
        "    except SystemExit as error: code = error.code\n"
        f"print(code, *(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    number, _, names = run.stdout.strip().partition(" ")
    return int(number), names


@pytest.mark.parametrize(
    "args", [("--help",), ("-h",), ("--version",), ("embed", "--help"), ("inspect", "--help"), ("embed", "x"), ()]
)
def test_nothing_heavy_is_imported_to_answer(args: tuple[str, ...]) -> None:
    assert _imported(*args) == (2 if args in [("embed", "x"), ()] else 0, "")


def test_help(run_cli: Callable[..., Any]) -> None:
    run = run_cli("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for text in ("embed", "inspect", "convert", "weights", "Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done"):
        assert text in run.stdout
    run = run_cli("embed", "--help")
    assert (run.returncode, run.stderr) == (0, "")
    for option in (
        *("--out", "--weights", "--hop", "--pad", "--layer", "--postprocess", "--pool", "--resampler", "--format"),
        *("--device", "--precision", "--batch-size", "--workers", "--allow-truncated", "--overwrite", "--quiet"),
    ):
        assert option in run.stdout
    run = run_cli("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"vggish-pt {__version__}\n", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "Missing command; see 'vggish-pt --help'"),
        ("nope", "No such command 'nope'"),
        ("--nope", "No such option: --nope"),
        ("embed", "Missing argument 'INPUT'; see 'vggish-pt embed --help'"),
        ("embed x", "Missing option '--out'; see 'vggish-pt embed --help'"),
        ("embed x --out y --nope", "No such option: --nope"),
        ("embed x --out y --hop abc", "'--hop'"),
        ("embed x --out y --hop 0.123", "hop must be a positive multiple of 0.01 seconds"),
        ("embed x --out y --hop nan", "hop must be"),
        ("embed x --out y --pad all", "pad must be 'short', 'drop' or 'tail', not 'all'"),
        ("embed x --out y --layer fc3", "layer must be one of"),
        ("embed x --out y --postprocess zca", "postprocess must be"),
        ("embed x --out y --postprocess pca --layer fc1", "postprocess is for the embedding layer"),
        ("embed x --out y --pool max", "pool must be 'none' or 'mean', not 'max'"),
        ("embed x --out y --resampler sinc", "resampler must be"),
        ("embed x --out y --format csv", "format must be one of parquet, npz, npy, tfrecord, not 'csv'"),
        ("embed x --out y.csv", "y.csv: unknown ending .csv"),
        (
            "embed x --out y --device gpu",
            "device must be auto, cpu, cuda, cuda:N, mps, a list such as cuda:0,cuda:1, or cuda:all, not 'gpu'",
        ),
        ("embed x --out y --precision fp16", "precision must be one of fp32, tf32, bf16, not 'fp16'"),
        ("embed x --out y --batch-size 0", "'--batch-size'"),
        ("embed x --out y --workers -1", "'--workers'"),
        ("inspect", "Missing argument 'INPUT'"),
        ("inspect x --pad all", "pad must be"),
        ("inspect x --hop 0", "hop must be"),
    ],
)
def test_wrong_usage_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: str, message: str
) -> None:
    # In this process, as there are many: the command line's own entry, without its exit.
    from vggish_pt.cli.main import _run

    monkeypatch.setattr(sys, "argv", ["vggish-pt", *args.split()])
    assert _run() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vggish-pt: ")
    assert message in err
    assert err.count("\n") == 1


def test_wrong_usage_of_a_process(run_cli: Callable[..., Any]) -> None:
    run = run_cli("embed", "x", "--out", "y", "--pool", "max")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "vggish-pt: pool must be 'none' or 'mean', not 'max'\n"
