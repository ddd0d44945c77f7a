"""Processor seconds and memory to list the inputs of a manifest: a CSV of paths with one column, in a fresh process."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("path,label\n")
        for row in range(rows):
            file.write(f"recordings/{row // 1000:05}/{row:09}.wav,species {row * 7919 % 5000}\n")


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(manifest: str) -> None:
    from vggish_pt.dataset import find_clips

    before, begin = memory(), time.process_time()
    clips = find_clips([manifest])
    found = time.process_time()
    listed = memory()
    count = sum(1 for _ in clips)
    read = time.process_time()
    assert count == len(clips)
    print(f"| {count:,} | {found - begin:.1f} | {read - found:.1f} | {listed - before:.0f} | {memory() - before:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--manifest", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.manifest:
        measure(arguments.manifest)
        return
    print("| rows | CPU s to list | CPU s to read back | MB at most, listed | MB at most, read back |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "clips.csv"
            write_manifest(manifest, rows)
            subprocess.run([sys.executable, __file__, "--manifest", str(manifest)], check=True)


if __name__ == "__main__":
    main()
