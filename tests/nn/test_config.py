from __future__ import annotations

import json

import pytest

from vggish_pt import CheckpointError, VGGishConfig


def test_round_trip():
    config = VGGishConfig(True, 256, "mine", "MIT", {"sha256": "0" * 64, "steps": 3})
    assert VGGishConfig.from_json(config.to_json()) == config


def test_keys_of_the_future_are_ignored_within_a_format():
    document = json.loads(VGGishConfig().to_json()) | {"later": 1}
    assert VGGishConfig.from_json(json.dumps(document)) == VGGishConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "yamnet"}, "not a VGGish model"),
        ({"format_version": 2}, "newer vggish_pt"),
        ({"format_version": "1"}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"format_version": 0}, "format_version"),
        ({"final_relu": "yes"}, "final_relu"),
        ({"fc_width": 0}, "fc_width"),
        ({"fc_width": 1 << 40}, "fc_width"),
        ({"fc_width": 4096.0}, "fc_width"),
        ({"fc_width": True}, "fc_width"),
        ({"name": 1}, "name"),
        ({"license": None}, "license"),
        ({"source": []}, "source"),
    ],
)
def test_wrong_values(change, message):
    document = json.loads(VGGishConfig().to_json()) | change
    with pytest.raises(CheckpointError, match=message) as caught:
        VGGishConfig.from_json(json.dumps(document), origin="some/config.json")
    assert str(caught.value).startswith("some/config.json: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '"vggish"'])
def test_wrong_documents(text):
    with pytest.raises(CheckpointError):
        VGGishConfig.from_json(text)
