"""Makers of audio files for tests."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from vggish_pt.audio import open_audio

# Name → container and codec as libsndfile calls them, and whether it gives back the very samples of 16-bit audio.
FORMATS = {
    "u8.wav": ("WAV", "PCM_U8", False),
    "s16.wav": ("WAV", "PCM_16", True),
    "s24.wav": ("WAV", "PCM_24", True),
    "s32.wav": ("WAV", "PCM_32", True),
    "float.wav": ("WAV", "FLOAT", True),
    "double.wav": ("WAV", "DOUBLE", True),
    "extensible.wav": ("WAVEX", "PCM_16", True),
    "ulaw.wav": ("WAV", "ULAW", False),
    "adpcm.wav": ("WAV", "MS_ADPCM", False),
    "large.rf64": ("RF64", "PCM_16", True),
    "sony.w64": ("W64", "PCM_16", True),
    "apple.aiff": ("AIFF", "PCM_16", True),
    "apple.caf": ("CAF", "PCM_16", True),
    "sun.au": ("AU", "PCM_16", True),
    "free.flac": ("FLAC", "PCM_16", True),
    "vorbis.ogg": ("OGG", "VORBIS", False),
    "opus.opus": ("OGG", "OPUS", False),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", False),
}

# Name → FFmpeg's container and codec: what needs PyAV.
AV_FORMATS = {
    "aac.m4a": ("ipod", "aac"),
    "aac.mp4": ("mp4", "aac"),
    "opus.webm": ("webm", "libopus"),
    "aac.mkv": ("matroska", "aac"),
    "aac.aac": ("adts", "aac"),
    "mp3.avi": ("avi", "libmp3lame"),
}


def samples(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(channels, frames) int16: noise, each channel its own."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((channels, frames)) * 4000).clip(-32768, 32767).astype(np.int16)


def encode(name: str, pcm: np.ndarray, sample_rate: int = 16000, **options: Any) -> bytes:
    """A file of one of :data:`FORMATS` from (channels, frames) int16."""
    container, codec, _ = FORMATS[name]
    buffer = io.BytesIO()
    if codec in ("FLOAT", "DOUBLE"):  # libsndfile would write integers as they are
        pcm = pcm / 32768
    soundfile.write(buffer, pcm.T, sample_rate, format=container, subtype=codec, **options)
    return buffer.getvalue()


def encode_av(name: str, seconds: float = 1.0, sample_rate: int = 48000, *, video: bool = False) -> bytes:
    """A file of one of :data:`AV_FORMATS`: a tone of 440 Hz at half of full scale, in stereo."""
    import av

    container, codec = AV_FORMATS[name]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        picture: Any = None
        if video:
            picture = output.add_stream("mpeg4", rate=25)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        stream: Any = output.add_stream(codec, rate=sample_rate)
        stream.layout = "stereo"
        if picture is not None:
            for _ in range(int(25 * seconds)):
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * sample_rate)) / sample_rate)
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=sample_rate)
        for start in range(0, len(tone), 1024):
            piece = np.stack([tone[start : start + 1024]] * 2).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = sample_rate, start
            for converted in resampler.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def wav(
    data: bytes,
    *,
    declared: int | None = None,
    riff: int | None = None,
    rate: int = 16000,
    channels: int = 1,
    bits: int = 16,
    codec: int = 1,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV file by hand, with any lengths in its header and chunks around the audio."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", codec, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    body = b"WAVE" + chunk(b"fmt ", form) + before
    body += b"data" + struct.pack("<I", len(data) if declared is None else declared) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def chunk(name: bytes, content: bytes) -> bytes:
    """A RIFF chunk, padded to even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)


def decode(source: Any, sample_rate: float | None = None, **options: Any) -> np.ndarray:
    """All of the mono waveform."""
    with open_audio(source, sample_rate, **options) as audio:
        return np.concatenate(list(audio.blocks()))


def save(folder: Path, name: str, content: bytes) -> Path:
    """Writes a file."""
    path = folder / name
    path.write_bytes(content)
    return path
