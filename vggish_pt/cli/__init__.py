"""Command line, ``vggish-pt``. Heavy libraries are imported only by the commands that need them."""

from vggish_pt.cli.main import main

__all__ = ["main"]
