"""Clips: the names and sources that they get, and the identity that outputs store."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from vggish_pt.audio import Clip, Opener, open_audio
from vggish_pt.errors import SettingsError


class Named(io.BytesIO):
    name = "a\tb.wav"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a\nb.wav", "a\\nb.wav"),
        (Path("a.wav"), "a.wav"),
        (b"RIFF", "bytes"),
        (np.zeros(4), "array"),
        (torch.zeros(4), "array"),
        (io.BytesIO(), "file object"),
        (Named(), "a\\tb.wav"),
    ],
)
def test_a_source_has_the_name_that_open_audio_gives_it(source, name):
    clip = Clip.from_source(source, 16_000)
    assert clip.name == name
    assert clip.sample_rate == 16_000
    assert Clip.from_source(source, name="input 3").name == (name if isinstance(source, str | Path) else "input 3")
    assert clip.audio_source == str(source) if isinstance(source, Path) else clip.audio_source is source


def test_a_missing_source_is_an_error_when_it_is_opened():
    clip = Clip.from_source(None)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="cannot embed a NoneType"):
        open_audio(clip.audio_source)


def test_the_key_is_of_path_segment_and_columns_alone():
    # Outputs store it, so it must not change from one version to the next.
    clip = Clip("größe/a.wav", 3, b"x", 1.0, 2.5, {"label": "dog"}, 16_000)
    assert clip.key.hex() == Clip("größe/a.wav", start=1.0, end=2.5, columns={"label": "dog"}).key.hex()
    assert clip.key.hex() == "3e8cf1e6514b0f71f2e19101228cf236"
    assert len({clip.key, Clip("größe/a.wav").key, Clip("größe/a.wav", start=1.0).key}) == 3


def test_what_goes_to_a_worker():
    clip = Clip("a.wav", 3, b"abc", 1.0, 2.5, {"label": "dog"})
    sent = pickle.loads(pickle.dumps(clip.at(7)))  # noqa: S301 (our own)
    assert sent == Clip("a.wav", 7, b"abc", 1.0, 2.5)
    assert (clip.nbytes, Clip("a.wav").nbytes, Clip("a", source=np.zeros(4)).nbytes) == (3, 0, 32)
    assert not clip.has_opener


def test_openers_and_paths():
    class Sound:
        def open(self):
            return io.BytesIO()

    assert isinstance(Sound(), Opener)
    assert Clip("a", source=Sound()).has_opener
    assert not Clip("a").has_opener
