"""``vggish-pt`` as a process that need not load torch first: each command is a fork of a process that has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from conftest import REPOSITORY

_MAIN = """
import json, os, sys, importlib
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
from vggish_pt.cli import main
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(order["cwd"])
        for number, (path, flags) in enumerate(order["files"]):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdin = open(0, closefd=False)
        sys.argv = ["vggish-pt", *order["args"]]
        code = 1
        try:
            main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\\n")
    sys.stdout.flush()
"""

_LOADED = (
    *("torch", "sklearn.metrics", "scipy.ndimage", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    *("pyarrow.ipc", "safetensors.torch", "soundfile", "soxr", "vggish_pt.classify.model", "vggish_pt.dataset.inputs"),
)


class WarmCli:
    """Starts commands; needs a system that forks."""

    def __init__(self) -> None:
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *_LOADED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, *args: object, cwd: Path, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            new = os.O_WRONLY | os.O_CREAT
            files: list[Any] = [(str(stdin or os.devnull), os.O_RDONLY), (str(out), new), (str(err), new)]
            order = {"args": [str(arg) for arg in args], "cwd": str(cwd), "files": files}
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            code = json.loads(self._process.stdout.readline())
            text = [path.read_text(encoding="utf-8") for path in (out, err)]
            return subprocess.CompletedProcess(order["args"], code, *text)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=60)
