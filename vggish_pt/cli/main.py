"""Entry point of ``vggish-pt``: gathers the commands, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from vggish_pt.cli import convert, embed, inspect, weights
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.version import __version__

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="vggish-pt",
    help="VGGish audio embeddings: 128 numbers for each 0.96 s of sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, but some inputs failed.",
)
app.command("embed")(embed.embed)
app.command("convert")(convert.convert)
app.add_typer(weights.app, name="weights")
app.command("inspect")(inspect.inspect)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vggish-pt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line and exits the process."""
    # Like Ctrl-C, a polite kill unwinds, so that temporary files go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except SettingsError as error:
        _fail(error, EXIT_USAGE)
    except VGGishError as error:
        _fail(error, EXIT_FAILED)
    except BrokenPipeError:
        # The reader of our output has gone (``| head``): stop quietly, and keep the interpreter from flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _fail(error: VGGishError, code: int) -> None:
    message = " ".join(str(error).split())
    typer.echo(f"vggish-pt: {message}", err=True)
    sys.exit(code)
