"""Decoding against ffmpeg: a folder of one's own, or a campaign of damaged and joined files.

    python benchmarks/decoding.py folder sounds              # lists each file whose length differs by more than a frame
    python benchmarks/decoding.py campaign --files 2000      # generated: joined, cut, damaged, tagged, miscounted

Needs the program ffmpeg. The campaign fails if a healthy file is refused, or if a file is decoded 0.15 s shorter than
by ffmpeg without an error or a warning.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggish_pt.audio import open_audio
from vggish_pt.errors import AudioError

SHORTER_SECONDS = 0.15
FRAME_SECONDS = 1152 / 44100
FFMPEG = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error"]
# Name → options of ffmpeg.
FORMATS = {
    "pcm16.wav": ["-c:a", "pcm_s16le"],
    "pcm24.wav": ["-c:a", "pcm_s24le"],
    "float.wav": ["-c:a", "pcm_f32le"],
    "adpcm.wav": ["-c:a", "adpcm_ms"],
    "mp3.wav": ["-c:a", "libmp3lame"],
    "rf64.wav": ["-rf64", "always"],
    "sony.w64": [],
    "apple.aiff": [],
    "apple.caf": [],
    "sun.au": [],
    "free.flac": [],
    "cbr.mp3": ["-b:a", "128k"],
    "vbr.mp3": ["-q:a", "4"],
    "bare.mp3": ["-q:a", "4", "-write_xing", "0", "-id3v2_version", "0"],
    "low.mp3": ["-b:a", "32k", "-ar", "16000", "-ac", "1"],
    "layer2.mp2": [],
    "vorbis.ogg": ["-c:a", "libvorbis"],
    "opus.ogg": ["-c:a", "libopus"],
    "opus.opus": ["-c:a", "libopus", "-b:a", "24k", "-ac", "1", "-ar", "16000"],
    "flac.ogg": ["-c:a", "flac"],
    "aac.m4a": [],
    "fragmented.mp4": ["-movflags", "frag_keyframe+empty_moov"],
    "aac.aac": [],
    "opus.webm": ["-c:a", "libopus"],
    "vorbis.mkv": ["-c:a", "libvorbis"],
    "mp3.mkv": ["-c:a", "libmp3lame"],
    "aac.ts": [],
    "mp3.avi": ["-c:a", "libmp3lame"],
    "wma.asf": ["-c:a", "wmav2"],
    "aac.flv": ["-c:a", "aac"],
    "ac3.ac3": [],
    "wavpack.wv": [],
}
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
ID3V2 = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
APE = struct.pack("<II", 4, 0) + b"Year\0" + b"2026"
APE += b"APETAGEX" + struct.pack("<IIII", 2000, len(APE) + 32, 1, 0) + bytes(8)


@dataclass
class Outcome:
    """Result of decoding one file both ways: seconds, None where decoding failed, and the words of the package."""

    name: str
    ffmpeg: float | None
    ours: float | None
    said: list[str]


def ffmpeg_seconds(path: Path) -> float | None:
    """Decode a file with ffmpeg."""
    command = [*FFMPEG, "-i", str(path), "-map", "0:a:0", "-f", "f32le", "-ac", "1", "-ar", "16000", "-"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return len(done.stdout) / 4 / 16000 if done.stdout else None


def our_seconds(path: Path, *, allow: bool = False) -> tuple[float | None, list[str]]:
    """Decode a file with the package."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with open_audio(path, allow_truncated=allow) as audio:
                seconds: float | None = sum(map(len, audio.blocks())) / audio.sample_rate
        except AudioError as error:
            return None, [str(error)]
    return seconds, [str(warning.message) for warning in caught]


def examine(path: Path) -> Outcome:
    """Decode a file both ways."""
    return Outcome(path.name, ffmpeg_seconds(path), *our_seconds(path))


def run_folder(folder: Path) -> int:
    """Compare all files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    differing = 0
    for path in paths:
        outcome = examine(path)
        if outcome.ffmpeg is None and outcome.ours is None:
            continue
        if outcome.ours is None or outcome.ffmpeg is None or abs(outcome.ours - outcome.ffmpeg) > FRAME_SECONDS:
            differing += 1
            print(f"{path}: ffmpeg {outcome.ffmpeg} s, vggish_pt {outcome.ours} s {'; '.join(outcome.said)}")
    print(f"{len(paths)} files, {differing} differ")
    return int(differing > 0)


def make_healthy(folder: Path, source: Path | None) -> dict[str, bytes]:
    """Encode a sound in every format that this ffmpeg writes."""
    given = ["-i", str(source)] if source else ["-f", "lavfi", "-i", "anoisesrc=d=6:c=pink:r=44100:a=0.3"]
    made = {}
    for name, options in FORMATS.items():
        path = folder / name
        done = subprocess.run([*FFMPEG, "-y", *given, "-t", "6", *options, str(path)], capture_output=True, check=False)
        if done.returncode == 0:
            made[name] = path.read_bytes()
        else:
            print(f"{name}: this ffmpeg does not write it")
    return made


def change(kind: str, name: str, made: dict[str, bytes], random: np.random.Generator) -> bytes:
    """Return a file changed in one way."""
    content = bytearray(made[name])
    size = len(content)
    at = int(random.integers(0, size))
    span = int(random.choice([1, 16, 300, 3000, 30000]))
    if kind == "joined":
        alike = [other for other in made if Path(other).suffix == Path(name).suffix]
        return bytes(content) + made[alike[int(random.integers(len(alike)))]]
    if kind == "cut behind":
        return bytes(content[: max(100, at)])
    if kind == "cut in front":
        return bytes(content[at:])
    if kind == "zeros":
        content[at : at + span] = bytes(len(content[at : at + span]))
    elif kind == "noise":
        content[at : at + span] = random.bytes(len(content[at : at + span]))
    elif kind == "removed":
        del content[at : at + span]
    elif kind == "inserted":
        content[at:at] = random.bytes(span)
    elif kind == "tags behind":
        content += (ID3V1, APE, APE + ID3V1, bytes(int(random.integers(1, 5000))), random.bytes(span))[at % 5]
    elif kind == "tags in front":
        content[:0] = (ID3V2, bytes(1), b"ICY 200 OK\r\nicy-name:x\r\n\r\n", bytes(span), b"\xff")[at % 5]
    elif kind == "wrong length":
        place = int(random.integers(4, min(size - 8, 120)))
        value = int(random.choice([0, 1, 1000, 100_000, 0x7FFFFFFF, 0xFFFFFFFF]))
        content[place : place + 4] = value.to_bytes(4, "little" if at % 2 else "big")
    return bytes(content)


KINDS = (
    *("joined", "cut behind", "cut in front", "zeros", "noise", "removed", "inserted"),
    *("tags behind", "tags in front", "wrong length"),
)


def run_campaign(count: int, seed: int, workers: int, source: Path | None, keep: Path | None) -> int:
    """Decode generated files both ways, and list those that are short without a word."""
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = keep or Path(name)
        folder.mkdir(exist_ok=True)
        made = make_healthy(folder, source)
        paths = [folder / name for name in made]
        names = list(made)
        for number in range(count):
            random = np.random.default_rng([seed, number])
            kind, original = KINDS[number % len(KINDS)], names[number // len(KINDS) % len(names)]
            path = folder / f"{number:05d} {kind} {original}"
            path.write_bytes(change(kind, original, made, random))
            paths.append(path)
        with ThreadPoolExecutor(workers) as pool:
            for path, outcome in zip(paths, pool.map(examine, paths), strict=True):
                healthy = path.name in made
                verdict = judge(outcome, healthy)
                tally[f"{'healthy' if healthy else 'changed'}: {verdict}"] += 1
                if verdict in ("SHORT", "REFUSED"):
                    print(
                        f"{verdict} {path.name}: ffmpeg {outcome.ffmpeg} s, ours {outcome.ours} s {outcome.said}",
                        flush=True,
                    )
    for verdict, number in sorted(tally.items()):
        print(f"{number:6d} {verdict}")
    return int(any("SHORT" in key or "REFUSED" in key for key in tally))


def judge(outcome: Outcome, healthy: bool) -> str:
    """Return the verdict on one file."""
    if outcome.ours is None:
        return "REFUSED" if healthy else "error"
    if outcome.ffmpeg is not None and outcome.ours < outcome.ffmpeg - SHORTER_SECONDS and not outcome.said:
        return "SHORT"
    if healthy and (outcome.said or outcome.ffmpeg is None or abs(outcome.ours - outcome.ffmpeg) > 0.1):
        return "REFUSED"
    return "warning" if outcome.said else "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    folder = modes.add_parser("folder")
    folder.add_argument("folder", type=Path)
    campaign = modes.add_parser("campaign")
    campaign.add_argument("--files", type=int, default=2000)
    campaign.add_argument("--seed", type=int, default=0)
    campaign.add_argument("--workers", type=int, default=2)
    campaign.add_argument("--source", type=Path, help="A sound to encode; pink noise if left out.")
    campaign.add_argument("--keep", type=Path, help="A folder for the files, which are deleted otherwise.")
    given = parser.parse_args()
    if given.mode == "folder":
        sys.exit(run_folder(given.folder))
    sys.exit(run_campaign(given.files, given.seed, given.workers, given.source, given.keep))


if __name__ == "__main__":
    main()
