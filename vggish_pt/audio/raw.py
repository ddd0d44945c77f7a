"""Samples without a header (.raw, .gsm, .vox): the user says what they are, as their bytes cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from vggish_pt.audio.decoder import BLOCK_VALUES, MIN_BLOCK_FRAMES, Decoder, Samples
from vggish_pt.audio.view import QuietView, buffered
from vggish_pt.errors import AudioError, SettingsError

_TYPES = {"u8": "PCM_U8", "s8": "PCM_S8", "ulaw": "ULAW", "alaw": "ALAW", "gsm": "GSM610", "vox": "VOX_ADPCM"}
_TYPES |= {
    f"{name}{end}": code
    for name, code in (("s16", "PCM_16"), ("s24", "PCM_24"), ("s32", "PCM_32"), ("f32", "FLOAT"), ("f64", "DOUBLE"))
    for end in ("le", "be")
}
_TELEPHONE_RATE = 8000


@dataclass(frozen=True)
class RawFormat:
    """Format of samples without a header.

    Attributes:
        encoding: FFmpeg's name of the sample format, or "ulaw", "alaw", "gsm" or "vox".
        sample_rate: hertz.
        channels: number of channels.
    """

    encoding: str
    sample_rate: int = _TELEPHONE_RATE
    channels: int = 1

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Return the format that a text such as ``s16le:44100:2`` describes; rate and channels may be left out.

        Raises:
            SettingsError: the text describes none.
        """
        encoding, *numbers = text.split(":")
        if (
            encoding not in _TYPES
            or len(numbers) > 2
            or not all(number.isdigit() and int(number) for number in numbers)
        ):
            names = ", ".join(sorted(_TYPES))
            raise SettingsError(
                f"raw must be ENCODING[:RATE[:CHANNELS]], such as s16le:44100:2, not {text!r}; encodings: {names}"
            )
        return cls(encoding, *map(int, numbers))


def open_raw(file: BinaryIO, form: RawFormat, name: str) -> Decoder[Samples]:
    """Open samples without a header.

    Args:
        file: the file, seekable, at its start; closed by the decoder's ``close``.
        form: format of the samples.
        name: name of the file in errors.

    Raises:
        AudioError: the format cannot be read.
    """
    import soundfile

    view = QuietView(file)
    endian = "BIG" if form.encoding.endswith("be") else "LITTLE"
    try:
        opened = soundfile.SoundFile(
            buffered(view), "r", form.sample_rate, form.channels, _TYPES[form.encoding], endian, "RAW"
        )
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read as {form.encoding} ({error})", name) from None

    def close() -> None:
        opened.close()
        file.close()

    blocks = _blocks(opened, view, name)
    return Decoder(form.sample_rate, form.channels, opened.frames, "RAW", opened.subtype, blocks, close)


def _blocks(opened: Any, view: QuietView, name: str) -> Iterator[Samples]:
    size = max(MIN_BLOCK_FRAMES, BLOCK_VALUES // opened.channels)
    while len(block := opened.read(size, always_2d=True, dtype="float64")):
        yield np.ascontiguousarray(block)
    if view.error is not None:
        raise AudioError(f"{name}: cannot be read ({view.error})", name)
