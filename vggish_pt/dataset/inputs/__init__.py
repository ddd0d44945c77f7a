"""From what was named to what is to be embedded: files, folders, lists, manifests, tar shards, Parquet, addresses."""

from vggish_pt.audio.clip import path_text
from vggish_pt.dataset.inputs.clips import Clips
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Inputs, find_inputs
from vggish_pt.dataset.inputs.find import find_clips

__all__ = ["AUDIO_SUFFIXES", "Clips", "Inputs", "find_clips", "find_inputs", "path_text"]
