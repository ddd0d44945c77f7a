"""The command line, ``vggish-pt``. It only parses and calls; nothing heavy is imported before a command needs it."""

from vggish_pt.cli.main import main

__all__ = ["main"]
