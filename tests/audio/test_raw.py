"""Samples without a header."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from audio_files import decode, samples

from vggish_pt.audio import open_audio
from vggish_pt.audio.raw import RawFormat
from vggish_pt.errors import SettingsError

PCM = samples(4000, 2)


@pytest.mark.parametrize(
    ("text", "dtype", "scale"),
    [
        ("s16le:16000:2", "<i2", 1),
        ("s16be:16000:2", ">i2", 1),
        ("s32le:16000:2", "<i4", 1 << 16),
        ("f64be:16000:2", ">f8", 1 / 32768),
    ],
)
def test_plain_samples(text: str, dtype: str, scale: float) -> None:
    data = (PCM.T.astype(np.float64) * scale).astype(dtype).tobytes()
    with open_audio(data, raw=RawFormat.parse(text)) as audio:
        assert (audio.sample_rate, audio.channels, audio.frames) == (16000, 2, 4000)
        np.testing.assert_array_equal(np.concatenate(list(audio.blocks())), (PCM / 32768).mean(axis=0))


@pytest.mark.parametrize(("text", "code"), [("gsm", "GSM610"), ("vox:6000", "VOX_ADPCM"), ("ulaw", "ULAW")])
def test_telephone_codecs(text: str, code: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, PCM[0][:3200], 8000, format="RAW", subtype=code)
    form = RawFormat.parse(text)
    assert form == RawFormat(text.split(":")[0], 6000 if ":" in text else 8000, 1)
    assert 3200 <= len(decode(buffer.getvalue(), raw=form)) <= 3200 + 160


@pytest.mark.parametrize("text", ["", "s17", "s16le:0", "s16le:x", "s16le:8000:1:1", "s16le:-1"])
def test_no_format(text: str) -> None:
    with pytest.raises(SettingsError, match="raw must be ENCODING"):
        RawFormat.parse(text)
