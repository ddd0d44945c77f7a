"""Inputs of a data set: files, folders, lists, manifests, tar shards, Parquet files and addresses, as clips."""

from vggish_pt.dataset.inputs.clips import Clips
from vggish_pt.dataset.inputs.files import AUDIO_SUFFIXES, Inputs, find_inputs
from vggish_pt.dataset.inputs.find import find_clips
from vggish_pt.utils.text import path_text

__all__ = ["AUDIO_SUFFIXES", "Clips", "Inputs", "find_clips", "find_inputs", "path_text"]
