"""Labelled sounds from folders and manifests."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vggish_pt.classify.data.examples import check_learnable
from vggish_pt.classify.data.labelled import read_labelled
from vggish_pt.errors import AudioError, SettingsError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with a file each; sounds are not opened, so they can be empty."""
    touch(tmp_path / "data" / "dog" / "1-a.wav")
    touch(tmp_path / "data" / "rain" / "2-b.OGG")
    return tmp_path / "data"


def csv(tmp_path, text, name="m.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path, **options):
    with pytest.raises(SettingsError) as caught:
        read_labelled(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Folders


def test_folder_gives_a_class_for_each_sub_folder(folder):
    touch(folder / "dog" / "deeper" / "3-c.flac")
    touch(folder / "dog" / "notes.txt")
    touch(folder / "dog" / ".hidden.wav")
    touch(folder / ".git" / "x.wav")
    touch(folder / "README.md")
    data = read_labelled(folder)
    assert data.labels == ["dog", "rain"] and not data.multilabel
    found = [(os.path.relpath(e.item.path, folder), e.item.index, e.labels) for e in data.examples]
    assert found == [
        (os.path.join("dog", "1-a.wav"), 0, ("dog",)),
        (os.path.join("dog", "deeper", "3-c.flac"), 1, ("dog",)),
        (os.path.join("rain", "2-b.OGG"), 2, ("rain",)),
    ]
    assert data.passed_over == 2
    assert data.targets().tolist() == [[1, 0], [1, 0], [0, 1]]
    assert data.groups() is None


def test_folder_without_classes(tmp_path):
    touch(tmp_path / "a.wav")
    assert "no sub-folders" in refusal(tmp_path)


def test_folder_with_sounds_outside_classes(folder):
    touch(folder / "lost.wav")
    assert "lost.wav" in refusal(folder)


def test_folder_with_an_empty_class(folder):
    (folder / "cat").mkdir()
    message = refusal(folder)
    assert "cat" in message and "holds no audio file" in message


def test_what_is_neither_folder_nor_manifest(tmp_path):
    assert "no such folder or manifest" in refusal(tmp_path / "nothing")
    assert "nor a manifest" in refusal(touch(tmp_path / "a.wav"))
    with pytest.raises(AudioError, match="no such file"):
        read_labelled(tmp_path / "m.csv")


def test_folds_from_file_names(folder):
    data = read_labelled(folder, fold_from=r"^(\d)-")
    assert [example.fold for example in data.examples] == ["1", "2"]
    touch(folder / "dog" / "odd.wav")
    assert "odd.wav" in refusal(folder, fold_from=r"^(\d)-")
    assert "no regular expression" in refusal(folder, fold_from="(")


# Manifests


def test_manifest_with_all_columns(tmp_path):
    path = csv(
        tmp_path,
        "path,label,fold,group,split,start,end,site\n"
        "s/a.wav,dog,1,g1,train,,2.5,north\n"
        "s/a.wav,rain,1,g1,train,2.5,,south\n"
        "/b.wav, dog ,2,g2,Validation,,,\n",
    )
    data = read_labelled(path)
    first, second, third = data.examples
    assert (first.fold, first.group, first.split) == ("1", "g1", "train")
    assert (first.item.path, first.item.source) == ("s/a.wav", str(tmp_path / "s/a.wav"))
    assert (first.item.start, first.item.end, second.item.start) == (None, 2.5, 2.5)
    assert first.item.columns == {"site": "north"}
    assert (third.labels, third.split, third.item.source) == (("dog",), "validation", "/b.wav")
    assert data.groups() == ["g1", "g1", "g2"]


def test_several_labels(tmp_path):
    data = read_labelled(csv(tmp_path, "path,labels\na.wav,rain;dog; rain\nb.wav,dog\n"))
    assert data.multilabel and data.labels == ["dog", "rain"]
    assert [example.labels for example in data.examples] == [("dog", "rain"), ("dog",)]
    assert data.targets().tolist() == [[1, 1], [1, 0]]


def test_json_lines_and_parquet_say_the_same(tmp_path):
    rows = [{"path": "a.wav", "labels": ["x", "y"], "fold": 1}, {"path": "b.wav", "labels": ["x"], "fold": 2}]
    lines = csv(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "m.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for path in (lines, tmp_path / "m.parquet"):
        data = read_labelled(path)
        assert [(e.labels, e.fold) for e in data.examples] == [(("x", "y"), "1"), (("x",), "2")]


def test_numbers_as_tables_with_gaps_store_them(tmp_path):
    table = pa.table({"path": ["a.wav", "b.wav"], "label": [0, 1], "fold": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "m.parquet")
    data = read_labelled(tmp_path / "m.parquet")
    assert data.labels == ["0", "1"] and [e.fold for e in data.examples] == ["1", "2"]


def test_parts_of_a_file_belong_together(tmp_path):
    data = read_labelled(csv(tmp_path, "path,label,start,end\na.wav,x,0,1\n./a.wav,y,1,2\nb.wav,x,,\n"))
    groups = data.groups()
    assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label,labels\na.wav,x,x\n", "both"),
        ("path,kind\na.wav,x\n", "needs a column 'label'"),
        ("path,label\n", "no rows"),
        ("path,label\na.wav,x\nb.wav,\nc.wav, \n", "2 rows cannot be used: line 3: it has no label; line 4"),
        ("path,labels\na.wav,;\n", "line 2: it has no label"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,\n", "'fold' is empty in 1 of 2 rows, the first is line 3"),
        ("path,label,group\na.wav,x,\nb.wav,y,1\n", "'group' is empty in 1 of 2 rows"),
        ("path,label,split\na.wav,x,train\nb.wav,y,\n", "'split' is empty"),
        ("path,label,split\na.wav,x,learn\n", "split 'learn' is none of"),
        ("path,label,group,fold\na.wav,x,g,1\nb.wav,y,g,2\n", "group 'g' is in fold '1' and in fold '2'"),
        ("path,label,group,split\na.wav,x,g,train\nb.wav,y,g,test\n", "group 'g' is in split 'train'"),
        ("path,label\na.wav,x\n./a.wav,y\n", "there twice"),
        ("path,labels\na.wav,x\na.wav,y\n", "there twice"),
        ("path,label\na.wav,x\n,y\n", "line 3: no path"),
        ("path,label,start,end\na.wav,x,3,1\n", "line 2"),
        ("path,label\na.wav,x\nb.wav,y,z\n", "3 fields"),
        ('path,label\na.wav,"x\ny"\n', "control characters"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, says):
    assert says in refusal(csv(tmp_path, text))


def test_json_lines_that_change_their_mind(tmp_path):
    lines = '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "labels": ["x"]}\n'
    assert "both" in refusal(csv(tmp_path, lines, "m.jsonl"))
    assert "no single value" in refusal(csv(tmp_path, '{"path": "a.wav", "label": {"a": 1}}\n', "m.jsonl"))


def test_folds_are_given_once(tmp_path):
    path = csv(tmp_path, "path,label,fold\n1-a.wav,x,1\n2-b.wav,y,2\n")
    assert "give one of them" in refusal(path, fold_from=r"^(\d)")


# What can be learned


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,x", "b,x"], "one class only"),
        (["a,x", "b,x", "c,y"], "class 'y' has fewer than two clips"),
        (["a,x", "b,x;y", "c,x;y"], "every clip has the label 'x'"),
    ],
)
def test_sets_from_which_nothing_can_be_learned(tmp_path, rows, says):
    data = read_labelled(csv(tmp_path, "\n".join(["path,labels", *rows])))
    with pytest.raises(SettingsError, match=says):
        check_learnable(data)


def test_a_part_of_a_set(folder):
    touch(folder / "dog" / "3-c.flac")
    data = read_labelled(folder)
    left = data.without({0, 2})
    assert [e.item.path for e in left.examples] == [data.examples[1].item.path] and left.labels == data.labels
    assert [e.item.index for e in data.select(np.array([2, 0])).examples] == [2, 0]
    with pytest.raises(SettingsError, match="class 'dog', class 'rain' have fewer"):
        check_learnable(left)
