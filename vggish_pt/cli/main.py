"""Entry point of ``vggish-pt``: the commands, and errors as one line and an exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from vggish_pt.cli import (
    bench,
    convert,
    embed,
    evaluate,
    fad,
    inspect,
    plot,
    predict,
    probe,
    report,
    stream,
    train,
    weights,
)
from vggish_pt.cli.streams import StandardOutputError, prepare_streams
from vggish_pt.errors import SettingsError, VGGishError
from vggish_pt.utils.text import discard_output, one_line
from vggish_pt.version import __version__

EXIT_FAILED = 1
EXIT_USAGE = 2

# The exception of a wrong command line; its class is from click or from typer's own copy of click.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="vggish-pt",
    help="VGGish audio embeddings: 128 numbers for each 0.96 s of audio.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, but some inputs failed.",
)
app.command("embed")(embed.embed)
app.command("report")(report.report)
app.command("inspect")(inspect.inspect)
app.command("plot")(plot.plot)
app.command("stream")(stream.stream)
app.command("fad")(fad.fad)
app.command("probe")(probe.probe)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("convert")(convert.convert)
app.command("bench")(bench.bench)
app.add_typer(weights.app, name="weights")


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
    """Run the command line and exit the process."""
    # SIGTERM raises SystemExit, so that temporary files are removed, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    warnings.showwarning = lambda message, *_, **__: _print_error(f"warning: {message}")
    prepare_streams()
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(prog_name="vggish-pt", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "vggish-pt"
        _print_error(f"{error.format_message().rstrip('.')}; see '{command} --help'")
        return EXIT_USAGE
    except SettingsError as error:
        _print_error(error)
        return EXIT_USAGE
    except VGGishError as error:
        _print_error(error)
        return EXIT_FAILED
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        discard_output()  # the reader of the pipe has ended (``| head``)
        return EXIT_FAILED
    except StandardOutputError as error:
        discard_output()
        _print_error(f"standard output: cannot be written ({error.strerror})")
        return EXIT_FAILED


def _print_error(message: object) -> None:
    typer.echo(f"vggish-pt: {one_line(message)}", err=True)
