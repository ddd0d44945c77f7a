"""Progress as lines in a log, and as bars and a table on a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from folder_runs import done, make_items, outcome

from vggish_pt.cli.progress import Display, Progress
from vggish_pt.dataset.outputs.record import Counts


def _watch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, enabled: bool = True) -> list[str]:
    now = 1000.0
    monkeypatch.setattr("vggish_pt.cli.progress.time.monotonic", lambda: now)
    with Progress(enabled=enabled) as progress:
        progress.begin(50, Counts(inputs=50, files=19, errors=1, seconds=7200.0))
        for item in make_items(10):
            now += 4
            progress.watch(outcome(item))
        progress.finish("29 files, 87 windows → x")
    return capsys.readouterr().err.splitlines()


def test_lines_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _watch(monkeypatch, capsys) == [
        "resuming: 20 of 50 files are done, 2.00 h of audio",
        "24 of 50 files, 2.00 h of audio, 1 times real time, 1 failed, about 2 min left",
        "vggish-pt: größe/0007.wav: broken",
        "28 of 50 files, 2.01 h of audio, 1 times real time, 2 failed, about 88 s left",
        "29 files, 87 windows → x (40.0 s, 2.01 h of audio, 1 times real time, 2 failed)",
    ]


def test_quiet_names_failures_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _watch(monkeypatch, capsys, enabled=False) == ["vggish-pt: größe/0007.wav: broken"]


def test_rates_are_of_this_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("vggish_pt.cli.progress.time.monotonic", lambda: now)
    with Progress() as progress:
        progress.begin(1_000_000, Counts(files=500_000, seconds=1e6))
        now = 100.0
        progress.watch(done(make_items(1)[0], windows=100_000))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "500001 of 1000000 files, 304.44 h of audio, 960 times real time, about 13888.9 h left"


def test_control_characters_are_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.note(f"{Path('a')}\n\x1b[31m")
    assert capsys.readouterr().err == "a\\n\\x1b[31m\n"


def test_tasks_and_rows_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("vggish_pt.cli.progress.time.monotonic", lambda: now)
    with Display() as display:
        for done in range(1, 5):
            display.update("decoding", done, 10)
            now += 10.0
        display.row({"epoch": "1", "loss": "0.5"}, "epoch 1 of 2: loss 0.5")
        display.update("training", 5, 8, unit="batches", detail="fast")
        now += 15.0
        display.update("training", 6, 8, unit="batches", detail="fast")
        display.error("a.wav: broken")
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 3 of 10 files, about 70 s left",
        "epoch 1 of 2: loss 0.5",
        "training: 6 of 8 batches, fast, about 30 s left",
        "vggish-pt: a.wav: broken",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_and_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Display() as display:
        display.update("[bold]decoding", 3, 10, detail="[/bold]")
        display._live.refresh()
        assert "[bold]decoding" in terminal.getvalue() and "[/bold]" in terminal.getvalue()
        for epoch in range(1, 21):
            display.row({"epoch": str(epoch), "loss": f"0.{epoch:02}7"}, "not on a terminal")
        display.error("[red]a.wav: broken\n")
    shown = terminal.getvalue()
    assert "vggish-pt: [red]a.wav: broken\\n" in shown and "not on a terminal" not in shown
    end = shown[shown.rindex("epoch") :]  # the whole table stays on the screen
    assert [f"0.{epoch:02}7" in end for epoch in range(1, 21)] == [True] * 20


def test_a_terminal_shows_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress(10) as progress:
        for item in make_items(2):
            progress.watch(outcome(item))
        progress._live.refresh()
        assert "2/10" in terminal.getvalue() and "h of audio" in terminal.getvalue()
