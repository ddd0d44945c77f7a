"""The machine's description and its peak."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from vggish_pt.bench import machine


def test_peak_counts_operations_by_the_clock() -> None:
    ticks = count()
    product, convolution = machine.peak(torch.float32, clock=lambda: float(next(ticks)))
    assert product == 2 * 2048**3
    assert convolution == 2 * 16 * 12 * 8 * 512 * 512 * 9


def test_description() -> None:
    facts = machine.describe()
    assert facts["torch"] == torch.__version__
    assert facts["threads"].split()[0] == str(torch.get_num_threads())
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    assert "gpu" not in facts
    assert 1 <= machine.cores() <= 4096


def test_bfloat16_where_torch_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert not machine.has_bfloat16(torch.device("cpu"))
