"""Batches: of one size, for several devices in turn, computed while others are collected."""

from __future__ import annotations

import copy
import threading
import time

import pytest
import torch

from vggish_pt.audio.clip import Clip
from vggish_pt.inference import batching as batch_module
from vggish_pt.inference.batching import Batch
from vggish_pt.inference.devices import replicas
from vggish_pt.inference.pipeline import embed_clips
from vggish_pt.inference.runners import HostRunner, compute
from vggish_pt.inference.settings import EmbedSettings


class Receiver:
    def __init__(self) -> None:
        self.pending = 0
        self.values: list[torch.Tensor] = []

    def take(self, values: torch.Tensor) -> None:
        self.pending -= len(values)
        self.values.append(values)


class LateRunner:
    """Behaves as a device does that computes in the background, and checks that it is treated as one."""

    depth = 2

    def __init__(self, model, settings) -> None:
        self.model, self.settings = model, settings
        self.sizes: list[int] = []
        self.under_way = self.most = 0
        self.staging = [torch.empty(0), torch.empty(0)]

    def begin(self, parts):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        assert self.under_way <= self.depth
        turn = len(self.sizes) % 2
        # A buffer that the pass before the last one read from: it must be done by now.
        self.staging[turn] = torch.cat(list(parts))
        self.sizes.append(len(self.staging[turn]))
        return LateBatch(self, turn)


class LateBatch:
    def __init__(self, runner, turn) -> None:
        self.runner, self.turn = runner, turn
        self.result = None
        self.thread = threading.Thread(target=self._compute)
        self.thread.start()

    def _compute(self) -> None:
        time.sleep(0.01)
        self.result = compute(self.runner.model, self.runner.settings, self.runner.staging[self.turn])

    def done(self) -> bool:
        return not self.thread.is_alive()

    def values(self):
        self.thread.join()
        assert self.result is not None
        self.runner.under_way -= 1
        result, self.result = self.result.clone(), None
        return result


@pytest.fixture
def windows(small_model):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 96, 64, generator=generator) for n in (3, 1, 8, 0, 2, 13, 1)]


def _results(batch, windows):
    receivers = [Receiver() for _ in windows]
    for receiver, examples in zip(receivers, windows, strict=True):
        batch.add(receiver, examples)
    batch.run_all()
    assert all(receiver.pending == 0 for receiver in receivers)
    return [torch.cat([batch.empty(), *receiver.values]) for receiver in receivers]


def _equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("what", [{"layer": "conv1"}, {"postprocess": "uint8"}])
def test_several_devices_give_the_same_bits(small_model, windows, monkeypatch, what):
    settings = EmbedSettings(batch_size=5, **what)
    expected = _results(Batch(small_model, settings), windows)
    models = replicas(copy.deepcopy(small_model), [torch.device("cpu")] * 3)
    assert len({id(model) for model in models}) == len({m.network.fc1.weight.data_ptr() for m in models}) == 3
    assert _equal(_results(Batch(models, settings), windows), expected)

    runners: list[LateRunner] = []

    def make_runner(model, settings):
        runners.append(LateRunner(model, settings))
        return runners[-1]

    monkeypatch.setattr(batch_module, "make_runner", make_runner)
    assert _equal(_results(Batch(models[:2], settings), windows), expected)
    assert [runner.sizes for runner in runners] == [[5, 5, 5], [5, 5, 3]]  # in turn
    assert all(runner.most == 2 for runner in runners)  # a pass waits there while another one is computed
    assert all(runner.under_way == 0 for runner in runners)


def test_values_come_without_waiting_for_more(small_model, windows, monkeypatch):
    monkeypatch.setattr(batch_module, "make_runner", LateRunner)
    batch, receiver = Batch(small_model, EmbedSettings(batch_size=2)), Receiver()
    batch.add(receiver, windows[0][:2])
    deadline = time.monotonic() + 30
    while receiver.pending:
        assert time.monotonic() < deadline
        batch.collect()
    assert len(receiver.values) == 1


def test_on_the_cpu_values_are_there_at_once(small_model, windows):
    batch, receiver = Batch(small_model, EmbedSettings(batch_size=2)), Receiver()
    batch.add(receiver, windows[0])
    assert (receiver.pending, sum(map(len, receiver.values))) == (1, 2)
    assert not receiver.values[0].is_inference()


def test_passes_copy_nothing_but_what_they_must(small_model, windows, monkeypatch):
    begun = []
    begin = HostRunner.begin
    monkeypatch.setattr(HostRunner, "begin", lambda runner, parts: begun.append(list(parts)) or begin(runner, parts))
    batch = Batch(small_model, EmbedSettings(batch_size=8))
    batch.add(Receiver(), windows[2])
    assert begun[0][0].data_ptr() == windows[2].data_ptr()


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(None, [32, 64, 128, 256, 220]), (100, [32, 64, 100] + 5 * [100] + [4]), (8, 87 * [8] + [4])],
)
def test_passes_grow_until_they_have_their_size(small_model, monkeypatch, batch_size, sizes):
    begun: list[int] = []

    class Runner:
        depth = 0

        def __init__(self, model, settings) -> None:
            pass

        def begin(self, parts):
            begun.append(sum(map(len, parts)))
            return DoneBatch(begun[-1])

    class DoneBatch:
        def __init__(self, count) -> None:
            self.count = count

        def done(self) -> bool:
            return True

        def values(self):
            return torch.zeros(self.count, 128)

    monkeypatch.setattr(batch_module, "make_runner", Runner)
    batch = Batch(small_model, EmbedSettings(batch_size=batch_size))
    for _ in range(100):  # however the windows come
        batch.add(Receiver(), torch.zeros(7, 96, 64))
    batch.run_all()
    assert begun == sizes


def test_items_on_several_devices(small_model, rng):
    import worker_openers

    items = [Clip(str(i), i, worker_openers.wav(1 + i, i)) for i in range(4)]
    settings = EmbedSettings(batch_size=3)
    models = replicas(copy.deepcopy(small_model), [torch.device("cpu")] * 2)
    for (_, a), (_, b) in zip(
        embed_clips(small_model, items, settings), embed_clips(models, items, settings), strict=True
    ):
        assert torch.equal(a.values, b.values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda(small_model, windows):
    model = copy.deepcopy(small_model).to("cuda")
    settings = EmbedSettings(batch_size=5)
    expected = _results(Batch(small_model, settings), windows)
    for given in (windows, [w.cuda() for w in windows]):
        for a, b in zip(_results(Batch(model, settings), given), expected, strict=True):
            assert a.device.type == "cpu"
            assert torch.allclose(a, b, atol=1e-2, rtol=1e-2)
