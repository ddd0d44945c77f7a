"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Weights: TypeAlias = Annotated[
    str,
    typer.Option(
        help="'audioset' (Google's, downloaded on first use), 'synthetic' (ships with the package), a model "
        "folder, or a Hugging Face Hub repository user/name.",
        metavar="NAME",
    ),
]

Hop: TypeAlias = Annotated[
    float,
    typer.Option(
        help="Seconds from the start of one window to the next, a multiple of 0.01; a window has 0.975 s.",
        metavar="SECONDS",
    ),
]

Resampler: TypeAlias = Annotated[
    str,
    typer.Option(
        help="How to get to 16 kHz: soxr (fast), resampy (equal to Google's code) or torchaudio.", metavar="NAME"
    ),
]

Device: TypeAlias = Annotated[
    str,
    typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps.", metavar="DEVICE"),
]

BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Windows computed at a time; changes speed and memory only.", metavar="N", min=1),
]

Threads: TypeAlias = Annotated[
    int,
    typer.Option(help="Threads that decode files ahead; changes speed only.", metavar="N", min=0, max=256),
]

AllowTruncated: TypeAlias = Annotated[
    bool, typer.Option("--allow-truncated", help="Use what a truncated file still holds, with a warning.")
]

Run: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="The run folder that 'vggish-pt train' made, or a Hub repository user/name.",
        metavar="RUN",
        show_default=False,
    ),
]
