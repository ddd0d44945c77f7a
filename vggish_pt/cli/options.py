"""Arguments and options that several commands share. The commands set the defaults, which --help prints."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Inputs: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        help="Audio files, folders (searched to any depth), patterns such as 'sounds/**/*.wav', addresses "
        "(s3://bucket/folder); manifests with a column path (.csv, .tsv, .jsonl, .parquet); .tar shards and .parquet "
        "files that contain audio; - for a list of paths on standard input.",
        metavar="INPUT",
        show_default=False,
    ),
]

LabelledData: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="A folder with a sub-folder of audio files for each class; or a manifest (CSV, TSV, JSON lines, Parquet) "
        "with the columns path and label, or labels separated by ';', and optionally fold, group, split, start, end.",
        metavar="DATA",
        show_default=False,
    ),
]

Run: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="A run folder that 'vggish-pt train' wrote, or a Hugging Face Hub repository user/name.",
        metavar="RUN",
        show_default=False,
    ),
]

WEIGHTS_HELP = (
    "Weights: 'audioset' (Google's, downloaded on first use), 'synthetic' (included in the package), a model folder, "
    "or a Hugging Face Hub repository user/name."
)
Weights: TypeAlias = Annotated[str, typer.Option(help=WEIGHTS_HELP, metavar="NAME")]

_HOP_HELP = "Seconds from the start of one window to the next, a multiple of 0.01; a window is 0.975 s long."
Hop: TypeAlias = Annotated[float, typer.Option(help=_HOP_HELP, metavar="SECONDS")]
TrainedHop: TypeAlias = Annotated[
    float | None,
    typer.Option(help=f"{_HOP_HELP} Default: as the classifier was trained; without one, 0.96.", metavar="SECONDS"),
]

_PAD_HELP = (
    "Padding with silence. short: only clips shorter than one window; tail: also an incomplete last window; drop: "
    "none, so that shorter clips fail."
)
Pad: TypeAlias = Annotated[str, typer.Option(help=_PAD_HELP, metavar="short|drop|tail")]
TrainedPad: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help=f"{_PAD_HELP} Default: as the classifier was trained; without one, short.", metavar="short|drop|tail"
    ),
]

_RESAMPLER_HELP = "Resampler to 16 kHz: soxr (fast), resampy (equal to Google's code) or torchaudio."
Resampler: TypeAlias = Annotated[str, typer.Option(help=_RESAMPLER_HELP, metavar="NAME")]
TrainedResampler: TypeAlias = Annotated[
    str | None,
    typer.Option(help=f"{_RESAMPLER_HELP} Default: as the classifier was trained; without one, soxr.", metavar="NAME"),
]

LAYERS_HELP = "conv1 to conv4, fc1, fc2, embedding (the last layer) or fused (several layers)"

Postprocess: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="pca: whiten with PCA and clip to [-2, 2]; uint8: also quantise to 8 bits, as in the AudioSet release. "
        "Default: none.",
        metavar="pca|uint8",
    ),
]

Device: TypeAlias = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]

BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Windows per batch; affects speed and memory only. Default: 256.", metavar="N", min=1),
]

Threads: TypeAlias = Annotated[
    int,
    typer.Option(help="Threads that decode files ahead; affects speed only.", metavar="N", min=0, max=256),
]

AllowTruncated: TypeAlias = Annotated[
    bool, typer.Option("--allow-truncated", help="Use the readable part of a truncated file, with a warning.")
]

FoldFrom: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Regular expression that finds the fold in a file's name, such as '^(\\d)-' for ESC-50.", metavar="REGEX"
    ),
]

SkipUnreadable: TypeAlias = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, instead of failing.")
]

Seed: TypeAlias = Annotated[int, typer.Option(help="Random seed.", metavar="N", min=0)]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]

Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
