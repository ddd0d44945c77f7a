"""Worker processes: the same numbers, any order, crashes that cost one file, and no process left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import soundfile as sf
import torch
from worker_openers import Counting, Deadly, Failing, Sound, Waiting, Warning_, wav

from vggish_pt.audio.clip import Clip
from vggish_pt.errors import AudioError, AudioWarning, SettingsError, WorkerError
from vggish_pt.inference import pipeline as embedding
from vggish_pt.inference.embeddings import Embeddings
from vggish_pt.inference.loading import WindowChunk, load_windows
from vggish_pt.inference.pipeline import embed_clips, use_processes
from vggish_pt.inference.processes import read_in_processes
from vggish_pt.inference.processes.wire import MAX_WINDOWS, as_chunk, messages, receive_message, send_message
from vggish_pt.inference.settings import EmbedSettings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

TESTS = Path(__file__).parents[1]


def _children() -> list[int]:
    """Live child processes that are workers."""
    found = subprocess.run(["pgrep", "-f", "-P", str(os.getpid()), "processes.child"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def _gone(pid: int, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # dead; nobody waits for orphans in some containers
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def _no_worker_left():
    yield
    assert _children() == []


def _by_path(results):
    return {item.path: result for item, result in results}


def _pieces(tasks, model, settings=None, workers=1, **options):
    return read_in_processes(tasks, model.frontend, settings or EmbedSettings(), workers, **options)


def test_the_same_bits_as_threads_and_none(small_model, tmp_path):
    path = tmp_path / "file.flac"
    sf.write(path, torch.randn(44_100 * 7, 2).numpy() * 0.1, 44_100)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    items = [
        Clip(str(path), 0),
        Clip("bytes", 1, wav(3, 1, 8_000)),
        Clip(str(bad), 2),
        Clip("opener", 3, Sound(wav(12, 2, 48_000))),
        Clip("part", 4, str(path), start=1.5, end=4.25),
        Clip("short", 5, wav(0.1, 3)),
        Clip(str(tmp_path / "missing"), 6),
    ]
    settings = EmbedSettings(hop=0.48, batch_size=7)
    none, threads, processes = (
        list(embed_clips(small_model, items, settings, workers=workers, processes=processes))
        for workers, processes in ((0, True), (2, False), (2, True))
    )
    for (item, a), (_, b), (other, d) in zip(none, threads, processes, strict=True):
        assert item is other
        if isinstance(a, Embeddings):
            assert torch.equal(a.values, d.values)
            assert torch.equal(a.values, b.values)
            assert torch.equal(a.start, d.start)
            assert torch.equal(a.end, d.end)
            assert (a.source, a.duration) == (d.source, d.duration)
        else:
            assert (type(a), str(a), a.source) == (type(d), str(d), d.source)
    part = none[4][1]
    assert part.start[0].item() == 1.5
    assert part.end[0].item() == 2.475
    assert part.duration == pytest.approx(2.75)


@pytest.mark.parametrize("hop", [0.01, 0.96, 1.5])
def test_the_same_windows_through_the_wire(small_model, hop):
    # A piece of more windows than a message holds, with windows that share frames, or have frames between them.
    clip = Clip("noise", 3, wav(65, rate=4_000))
    expected = list(load_windows(clip, small_model.frontend, EmbedSettings(hop=hop)))
    stream = io.BytesIO()
    for piece in expected:
        for header, frames in messages(piece):
            assert len(frames) <= MAX_WINDOWS * 96
            send_message(stream, header, frames)
    sent = stream.tell()
    stream.seek(0)
    pieces = []
    while stream.tell() < sent:
        pieces.append(as_chunk(3, *receive_message(stream)))
    assert torch.equal(torch.cat([p.windows for p in pieces]), torch.cat([p.windows for p in expected]))
    assert [p.last for p in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].duration == 65.0
    if hop == 0.01:
        assert sent < 3 * 65 * 100 * 64 * 4  # the frames, not the windows
    stream.seek(sent - 1)
    with pytest.raises(EOFError):
        receive_message(stream)
    for hostile in (b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x0d" + bytes(7) + b'{"rows": 1e9}'):
        with pytest.raises(EOFError):
            receive_message(io.BytesIO(hostile + bytes(100)))


def test_pieces_of_several_sources_come_in_turn(small_model, tmp_path):
    long, short, gate = wav(300, rate=4_000), wav(1.5), tmp_path / "gate"
    first = [tmp_path / "pid1", tmp_path / "pid2"]  # both workers are there before the long one's turn comes
    tasks = [*(Clip(pid.name, i, Waiting(short, pid, gate)) for i, pid in enumerate(first, 1)), Clip("long", 0, long)]
    tasks += [Clip(f"{i}", i, short) for i in range(3, 30)]

    def open_gate() -> None:
        while not all(pid.exists() for pid in first):
            time.sleep(0.01)
        gate.touch()

    threading.Thread(target=open_gate, daemon=True).start()
    pieces = list(_pieces(iter(tasks), small_model, workers=2, ahead=64))
    of_long = [i for i, piece in enumerate(pieces) if piece.number == 0]
    others = [i for i, piece in enumerate(pieces) if piece.number != 0]
    assert next(i for i, piece in enumerate(pieces) if piece.number >= 3) < of_long[-1]  # it holds up nothing behind it
    assert len(others) == 29
    windows = torch.cat([piece.windows for piece in pieces if piece.number == 0])
    expected = torch.cat([piece.windows for piece in load_windows(tasks[2], small_model.frontend, EmbedSettings())])
    assert torch.equal(windows, expected)


def test_out_of_order_results_do_not_wait(small_model, tmp_path):
    gate = tmp_path / "gate"
    waiting = Waiting(wav(2), tmp_path / "pid", gate)
    items = [Clip("slow", 0, waiting), *(Clip(str(i), i, wav(2, i)) for i in range(1, 9))]
    settings = EmbedSettings(batch_size=2)
    order: list[int] = []
    for item, _ in embed_clips(small_model, items, settings, workers=2, processes=True, ordered=False):
        order.append(item.index)
        if len(order) == 8:
            gate.touch()
    assert order[-1] == 0


def test_results_that_wait_for_an_earlier_one_are_bounded(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_WAITING_BYTES", 1 << 14)
    pulled, gate = [], tmp_path / "gate"

    def items():
        for i in range(60):
            pulled.append(i)
            yield Clip(str(i), i, wav(1, i) if i else Waiting(wav(1), tmp_path / "pid", gate))

    def open_gate():
        before, quiet = -1, 0
        while quiet < 15 or len(pulled) < 8:  # until no more are pulled
            quiet = quiet + 1 if len(pulled) == before else 0
            before = len(pulled)
            time.sleep(0.1)
        seen.append(before)
        gate.touch()

    seen: list[int] = []
    watch = threading.Thread(target=open_gate, daemon=True)
    watch.start()
    results = embed_clips(small_model, items(), EmbedSettings(batch_size=1), workers=2, processes=True)
    assert [item.index for item, _ in results] == list(range(60))
    assert seen[0] < 20  # 5 may be open, and 4 results are beyond the bound


@pytest.mark.parametrize("how", ["SIGSEGV", "exit"])
def test_a_deadly_file_costs_only_itself(small_model, tmp_path, how):
    log = tmp_path / "log"
    items = [Clip(str(i), i, wav(2, i)) for i in range(6)]
    items.insert(2, Clip("deadly.wav", 9, Deadly(wav(2), log, how)))
    results = _by_path(embed_clips(small_model, items, EmbedSettings(), workers=2, processes=True, ordered=False))
    error = results.pop("deadly.wav")
    assert isinstance(error, AudioError)
    ended = "exit code 7" if how == "exit" else "SIGSEGV"
    assert str(error).startswith(f"deadly.wav: the worker process that read it died, twice ({ended})")
    assert error.source == "deadly.wav"
    assert all(len(result) == 2 for result in results.values())
    assert len(results) == 6
    assert len(set(log.read_text().split())) == 2  # tried once more, in another process


def test_a_worker_killed_half_way_loses_and_repeats_nothing(small_model, tmp_path):
    data = wav(200, rate=4_000)
    deadly = Deadly(data, tmp_path / "log", "SIGKILL", times=1, after=len(data) // 2)
    tasks = [Clip("a", 0, deadly), Clip("b", 1, wav(2))]
    pieces = list(_pieces(tasks, small_model))
    expected = list(load_windows(Clip("a", 0, data), small_model.frontend, EmbedSettings()))
    windows = torch.cat([piece.windows for piece in pieces if piece.number == 0])
    assert torch.equal(windows, torch.cat([piece.windows for piece in expected]))
    assert [piece.duration for piece in pieces if piece.last] == [200.0, 2.0]
    assert len((tmp_path / "log").read_text().split()) == 2


def test_what_openers_do(small_model, tmp_path):
    class Local(Sound):
        pass

    items = [
        Clip("fails", 0, Failing()),
        Clip("local", 1, Local(wav(1))),
        Clip("warns", 2, Warning_(wav(1))),
        Clip("fine", 3, wav(1)),
    ]
    with pytest.warns(AudioWarning, match="loud"):
        results = _by_path(embed_clips(small_model, items, EmbedSettings(), workers=1, processes=True))
    assert str(results["fails"]) == "fails: cannot be read (KeyError: 'no such object\\nin the store')"
    assert str(results["local"]).startswith("local: cannot be sent to a worker process (")
    assert len(results["warns"]) == len(results["fine"]) == 1
    with pytest.warns(AudioWarning, match="loud"):
        threads = _by_path(embed_clips(small_model, items, EmbedSettings(), workers=1))
    assert str(threads["fails"]) == str(results["fails"])


def test_reading_ahead_is_bounded(small_model, tmp_path):
    log, taken = tmp_path / "log", []

    def tasks():
        for i in range(1000):
            taken.append(i)
            yield Clip(str(i), i, Counting(wav(20, rate=4_000), log))

    pieces = _pieces(tasks(), small_model, workers=2, ahead=8)
    assert isinstance(next(pieces), WindowChunk)
    time.sleep(1)  # a chance to run away
    assert len(taken) <= 2 * 2 + 8 + 1
    # An allowance is at least a message of 64 windows; a file has 20.
    assert len(log.read_text()) <= 2 * (64 // 20 + 2)
    pieces.close()


def test_tasks_are_held_back_but_never_all(small_model):
    began = []

    def tasks():
        for i in range(20):
            began.append(i)
            yield Clip(str(i), i, wav(1))

    for done, piece in enumerate(_pieces(tasks(), small_model, workers=2, hold=lambda: True)):
        assert piece.number == done
        assert len(began) == done + 1  # the next one, only when there is none
    assert done == 19


def test_bytes_that_wait_are_bounded(small_model):
    taken = []

    def tasks():
        for i in range(100):
            taken.append(i)
            yield Clip(str(i), i, bytes(1 << 23))

    pieces = _pieces(tasks(), small_model, workers=1, ahead=1000)
    next(pieces)
    assert len(taken) < 12
    pieces.close()


def test_errors_of_the_callers_iterable_come_last(small_model):
    def tasks():
        yield Clip("a", 0, wav(1))
        raise KeyError("mine")

    got = []
    with pytest.raises(KeyError, match="mine"):
        for piece in _pieces(tasks(), small_model):
            got.append(piece.number)  # noqa: PERF401 (extend would lose them)
    assert got == [0]


def test_closing_half_way_ends_all_workers(small_model, tmp_path):
    items = [Clip(str(i), i, Waiting(wav(1), tmp_path / f"pid{i}", tmp_path / "never")) for i in range(2)]
    results = embed_clips(
        small_model, [Clip("a", 9, wav(5)), *items], EmbedSettings(batch_size=1), workers=2, processes=True
    )
    next(results)
    assert 1 <= len(_children()) <= 2
    results.close()
    assert _children() == []


def test_no_more_workers_than_tasks(small_model):
    pieces = _pieces([Clip("a", 0, wav(5))], small_model, workers=50)
    next(pieces)
    assert len(_children()) == 1
    pieces.close()


@pytest.mark.parametrize("executable", ["/does/not/exist", "/bin/false", ""])
def test_workers_that_cannot_be_started(small_model, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(WorkerError, match=r"worker process.*; use threads"):
        list(_pieces([Clip("a", 0, wav(1))], small_model))


def test_another_front_end_is_refused(small_model):
    class Other(type(small_model.frontend)):
        pass

    with pytest.raises(SettingsError, match="use threads"):
        next(read_in_processes([Clip("a", 0, wav(1))], Other(), EmbedSettings(), 1))


def test_when_processes_are_chosen():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    chosen = [use_processes(workers, device) for device in (cpu, cuda) for workers in (0, 1, 2)]
    assert chosen == [False, False, True, False, True, True]


SCRIPT = """
import sys
from vggish_pt import VGGish
from vggish_pt.inference.pipeline import embed_clips
from vggish_pt.audio.clip import Clip
from vggish_pt.inference.settings import EmbedSettings
from worker_openers import Waiting, wav
from pathlib import Path

print("the script runs", flush=True)
folder = Path(sys.argv[2])
model = VGGish.from_pretrained(sys.argv[1])
items = [Clip("a", 0, wav(2)), *(Clip("b", i, Waiting(wav(2), folder / f"pid{i}", folder / "gate")) for i in (1, 2))]
for item, result in embed_clips(model, items, EmbedSettings(batch_size=1), workers=2, processes=True):
    print(item.path, len(result), flush=True)
"""


def _start(small_folder, tmp_path, **options):
    script = tmp_path / "unguarded.py"  # with no `if __name__ == "__main__"`
    script.write_text(textwrap.dedent(SCRIPT))
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, str(script), str(small_folder), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
        **options,
    )


def _wait_for(process, *paths: Path) -> list[int]:
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.read_text() for path in paths):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(path.read_text()) for path in paths]


def test_an_unguarded_script_runs_once(small_folder, tmp_path):
    (tmp_path / "gate").touch()
    with _start(small_folder, tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out.split("\n")) == (0, ["the script runs", "a 2", "b 2", "b 2", ""]), err


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_orphans(small_folder, tmp_path, ending):
    with _start(small_folder, tmp_path) as process:
        pids = _wait_for(process, tmp_path / "pid1", tmp_path / "pid2")
        if ending == signal.SIGINT:
            os.killpg(process.pid, ending)  # as a terminal does
        else:
            process.send_signal(ending)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()  # else leaving the block would wait for it for ever
        assert all(_gone(pid) for pid in pids)
    assert process.returncode == -ending
    assert err.count("Traceback") == (ending == signal.SIGINT), err  # this process's own, none of the workers'
