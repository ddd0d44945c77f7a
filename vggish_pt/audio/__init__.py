"""Audio in: files, bytes, file objects, arrays and tensors → blocks of one channel at the source's own rate."""

from vggish_pt.audio.source import Audio, AudioLike, display_name, open_audio

__all__ = ["Audio", "AudioLike", "display_name", "open_audio"]
