"""TFRecord files, read by TensorFlow itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset import outputs as output
from vggish_pt.dataset import writing
from vggish_pt.dataset.outcomes import EmbeddedClip
from vggish_pt.dataset.outputs import Rows, Schema
from vggish_pt.dataset.outputs.tfrecord import check_clips
from vggish_pt.errors import SettingsError

METADATA = {"version": "1", "weights": {"name": "w"}, "settings": {"hop": 0.96}}


def _done(item: Clip, windows: int) -> EmbeddedClip:
    values = np.random.default_rng(windows).integers(0, 256, (windows, 128), dtype=np.uint8)
    window = np.arange(windows, dtype=np.int32)
    start = (item.start or 0.0) + window * 0.96
    columns = {**item.columns, "segment_start": item.start, "segment_end": item.end}
    return EmbeddedClip(
        item, Rows(item.path, window, start, start + 0.975, values, columns, windows * 0.96 + 0.4), windows, 0
    )


def _write(path: Path, done: list[EmbeddedClip], columns: Any = None) -> None:
    with output.open_output(path, "tfrecord", Schema((128,), "uint8", METADATA, columns)) as opened:
        writing.write_file(iter(done), opened, [], lambda _: None)


@pytest.mark.slow
def test_tensorflow_reads_them(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    items = [
        Clip("größe/a.wav", 0, columns={"labels": "3;0;526"}),
        Clip("b.wav", 1, None, 30.0, 40.0, {"labels": [7], "video_id": "-0abc"}),
        Clip("c.wav", 2, columns={"labels": -1}),
        Clip("d.wav", 3),
    ]
    done = [_done(item, windows) for item, windows in zip(items, (1, 10, 400, 3), strict=True)]
    path = tmp_path / "x.tfrecord"
    _write(path, done)
    assert json.loads((tmp_path / "x.tfrecord.json").read_text()) == METADATA
    context = {
        "video_id": tf.io.FixedLenFeature([], tf.string),
        "start_time_seconds": tf.io.FixedLenFeature([], tf.float32),
        "end_time_seconds": tf.io.FixedLenFeature([], tf.float32),
        "labels": tf.io.VarLenFeature(tf.int64),
    }
    frames = {"audio_embedding": tf.io.FixedLenSequenceFeature([], tf.string)}
    records = list(tf.data.TFRecordDataset(str(path)))
    assert len(records) == 4
    told = []
    for record, each in zip(records, done, strict=True):
        facts, lists = tf.io.parse_single_sequence_example(record, context, frames)
        values = tf.io.decode_raw(lists["audio_embedding"], tf.uint8).numpy()
        np.testing.assert_array_equal(values, each.rows.embedding)
        times = [round(float(facts[name]), 4) for name in ("start_time_seconds", "end_time_seconds")]
        labels = tf.sparse.to_dense(facts["labels"]).numpy().tolist()
        told.append((facts["video_id"].numpy().decode(), *times, labels))
        message = tf.train.SequenceExample.FromString(record.numpy())  # the whole of it is well formed
        assert len(message.feature_lists.feature_list["audio_embedding"].feature) == len(each.rows)
    assert told == [
        ("größe/a.wav", 0.0, 1.36, [3, 0, 526]),
        ("-0abc", 30.0, 40.0, [7]),
        ("c.wav", 0.0, 384.4, [-1]),
        ("d.wav", 0.0, 3.28, []),
    ]


@pytest.mark.slow
def test_a_file_whose_bytes_are_damaged_is_found_out(tmp_path: Path) -> None:
    """The checksums are where TensorFlow looks for them."""
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "x.tfrecord"
    _write(path, [_done(Clip("a.wav"), 2)])
    good = path.read_bytes()
    for place in (0, 8, 40, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(tf.errors.DataLossError):
            list(tf.data.TFRecordDataset(str(path)))


@pytest.mark.parametrize("schema", [Schema((128,), "float32", METADATA), Schema((16,), "uint8", METADATA)])
def test_rows_that_do_not_fit(tmp_path: Path, schema: Schema) -> None:
    with (
        pytest.raises(SettingsError, match=r"128 values of 8 bits .* add --postprocess uint8, without --pool mean"),
        output.open_output(tmp_path / "x.tfrecord", "tfrecord", schema),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_labels_are_numbers() -> None:
    good: list[Any] = [None, "", 3, "3", "3;4", [3, 4], (), np.array([3]), 3.0]
    check_clips(Clip("a", columns={"labels": label}) for label in good)
    bad: list[Any] = ["Dog", "3;Dog", ["Dog"], 3.5, True, [None], 1 << 63, "3,4"]
    for label in bad:
        with pytest.raises(SettingsError, match=r"^a: labels in TFRecord files are whole numbers, .* put the numbers"):
            check_clips([Clip("a", columns={"labels": label})])


def test_other_columns_in_the_other_formats(tmp_path: Path) -> None:
    """Numbers stay numbers, with NaN where one is missing; lists become JSON."""
    columns = pa.schema([("label", pa.string()), ("fold", pa.int64()), ("tags", pa.list_(pa.string()))])
    carried = [{"label": "größe", "fold": 1, "tags": ["a", "b"]}, {"label": None, "fold": None, "tags": None}]
    done = [_done(Clip(f"{i}.wav", i, columns=each), 2) for i, each in enumerate(carried)]
    schema = Schema((128,), "uint8", METADATA, columns)
    for fmt in ("npz", "npy"):
        with output.open_output(tmp_path / f"x.{fmt}", fmt, schema) as opened:  # type: ignore[arg-type]
            writing.write_file(iter(done), opened, [], lambda _: None)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert archive["label"].tolist() == ["größe", "größe", "", ""]
        np.testing.assert_array_equal(archive["fold"], [1, 1, np.nan, np.nan])
        assert archive["tags"].tolist() == ['["a", "b"]', '["a", "b"]', "", ""]
    lines = (tmp_path / "x.npy.index.csv").read_text("utf-8").splitlines()
    assert lines[0] == "path,window,start,end,label,fold,tags"
    assert lines[2] == '0.wav,1,0.96,1.935,größe,1,"[""a"", ""b""]"'
    assert lines[3] == "1.wav,0,0.0,0.975,,,"
