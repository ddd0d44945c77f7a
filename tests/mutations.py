"""Damaged files in numbers, in a process of their own, so that a crash in C code is a failed test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_python(code: str, *args: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent
    paths = [str(root), str(root.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


MUTATIONS = """
import sys, warnings
import numpy as np
from audio_files import AV_FORMATS, FORMATS, decode, encode, encode_av, samples
from vggish_pt.errors import AudioError

warnings.simplefilter("ignore")
name, count = sys.argv[1], int(sys.argv[2])
content = encode(name, samples(1500), 48000) if name in FORMATS else encode_av(name, 0.1)
generator = np.random.default_rng(list(name.encode()))
outcomes = {"decoded": 0, "refused": 0}
for i in range(count):
    data = bytearray(content)
    near = min(len(data), 200 if i % 2 else len(data))  # every other one in the header
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(near))
        kind = generator.integers(4)
        if kind == 0:
            data[at : at + 1] = generator.bytes(1)
        elif kind == 1:
            data[at : at + 4] = [b"\\xff" * 4, b"\\0" * 4, b"\\x7f\\xff\\xff\\xff"][generator.integers(3)]
        elif kind == 2:
            data[at:at] = generator.bytes(int(generator.integers(1, 9)))
        else:
            del data[at : at + int(generator.integers(1, 200))]
    try:
        waveform = decode(bytes(data), allow_truncated=bool(generator.integers(2)))
        assert np.isfinite(waveform).all() and len(waveform) > 0
        outcomes["decoded"] += 1
    except AudioError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith("bytes: "), str(error)
        outcomes["refused"] += 1
print(outcomes["decoded"], outcomes["refused"])
"""
