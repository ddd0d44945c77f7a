"""From what was named to what is to be embedded: files, folders, lists, manifests, tar shards, Parquet, addresses."""

from vggish_pt.audio.clip import path_text
from vggish_pt.dataset.inputs.clips import Items
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Inputs, find_inputs
from vggish_pt.dataset.inputs.find import find_items

__all__ = ["AUDIO_SUFFIXES", "Inputs", "Items", "find_inputs", "find_items", "path_text"]
