"""Estimate of the time that a dataset takes on a cluster, from the rates of one machine.

    python examples/how_long.py --clips 2000000 --seconds 10

The rates are those of benchmarks/README.md (AMD EPYC with AVX-512, 44.1 kHz WAV); `vggish-pt bench` measures those
of your machine.
"""

from __future__ import annotations

import argparse

# Speed of one core from files to embeddings, in times real time: 144 and 231 on two cores.
WHOLE = {"fp32": 144 / 2, "bf16": 231 / 2}

# The same for decoding and resampling, for the front end, and for both together.
DECODE, FRONT_END = 1900, 2904
READ = 1 / (1 / DECODE + 1 / FRONT_END)


def hours_on_cores(audio: float, cores: int, precision: str = "fp32") -> float:
    """Return the hours for seconds of audio if the network is computed on the same cores."""
    return audio / (WHOLE[precision] * cores) / 3600


def hours_on_gpus(audio: float, cores: int, windows_per_second: float = float("inf"), gpus: int = 1) -> float:
    """Return the hours if GPUs compute the network and the cores decode: those of the slower of the two."""
    reading = audio / (READ * cores)
    network = audio / 0.96 / (windows_per_second * gpus)
    return max(reading, network) / 3600


def needed_windows_per_second(cores: int) -> float:
    """Return the windows per second of all GPUs at which GPUs and cores are equally fast."""
    return READ * cores / 0.96


def table(clips: int, seconds: float) -> list[str]:
    audio = clips * seconds
    rows = [("one machine of 16 cores, fp32", f"{hours_on_cores(audio, 16):.1f}")]
    rows += [("the same, bf16", f"{hours_on_cores(audio, 16, 'bf16'):.1f}")]
    rows += [("ten machines of 16 cores, fp32", f"{hours_on_cores(audio, 160):.2f}")]
    rows += [("the same, bf16", f"{hours_on_cores(audio, 160, 'bf16'):.2f}")]
    for gpus, cores in ((1, 16), (8, 128)):
        each = needed_windows_per_second(cores) / gpus
        name = f"{gpus} GPU, {cores} cores" if gpus == 1 else f"{gpus} GPUs, {cores} cores"
        rows.append((f"{name}; {each:,.0f} windows/s or more on each GPU", f"{hours_on_gpus(audio, cores):.2f}"))
    return ["| cluster | hours |", "| --- | --- |", *(f"| {name} | {hours} |" for name, hours in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each clip")
    options = parser.parse_args()
    print(f"{options.clips:,} clips, {options.clips * options.seconds / 3600:,.0f} hours of audio")
    print("\n".join(table(options.clips, options.seconds)))


if __name__ == "__main__":
    main()
