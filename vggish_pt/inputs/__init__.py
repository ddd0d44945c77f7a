"""From what was named to what is to be embedded: files, folders, lists, manifests, tar shards, Parquet, addresses."""

from vggish_pt.inputs.files import AUDIO_SUFFIXES, Inputs, find_inputs
from vggish_pt.inputs.find import find_items
from vggish_pt.inputs.items import Items
from vggish_pt.item import path_text

__all__ = ["AUDIO_SUFFIXES", "Inputs", "Items", "find_inputs", "find_items", "path_text"]
