"""Damaged tables and shards: an error of ours, or inputs; nothing else, and no crash."""

from __future__ import annotations

from mutations import run_python

CODE = """
import io, os, random, sys
import pyarrow as pa, pyarrow.parquet as pq
from audio_files import encode, samples
from tar_files import tar
from vggish_pt.errors import VGGishError
from vggish_pt.dataset.inputs import find_clips

def parquet(columns, rows):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=rows)
    return sink.getvalue()

wav = encode("s16.wav", samples(500))
sounds = [{"bytes": wav, "path": f"{i}.wav"} for i in range(20)]
seeds = {
    "s.tar": tar(("a.wav", wav), ("a.json", b"{}"), ("d" * 120 + "/b.wav", wav), ("b.txt", b"x")),
    "h.parquet": parquet({"audio": sounds, "n": list(range(20)), "tags": [["a"]] * 20}, 7),
    "m.parquet": parquet({"path": [f"{i}.wav" for i in range(99)], "start": [1.0] * 99, "label": ["x"] * 99}, 50),
    "m.csv": b"path,start,end,label\\n" + b"".join(b'"%d.wav",%d,,"x"\\n' % (i, i) for i in range(9)),
    "m.jsonl": b"".join(
        b'{"path": "%d.wav", "start": %d, "tags": ["a"], "d": {"k": 1}}\\n' % (i, i) for i in range(9)),
}
os.chdir(sys.argv[1])
generator, refused, found = random.Random(5), 0, 0
for _ in range(int(sys.argv[2])):
    for name, content in seeds.items():
        data = bytearray(content)
        for _ in range(generator.choice((1, 1, 2, 5, 20))):
            at = generator.randrange(len(data) or 1)
            if name.endswith("parquet") and generator.random() < 0.6:  # its end says what stands where
                at = max(0, len(data) - 1 - generator.randrange(2500))
            kind = generator.randrange(4)
            if kind == 0:
                data[at : at + 1] = generator.randbytes(1)
            elif kind == 1:
                del data[at : at + generator.randrange(1, 600)]
            elif kind == 2:
                data[at:at] = generator.randbytes(generator.randrange(1, 20))
            else:
                data[at : at + 8] = generator.choice((b"\\xff" * 8, bytes(8), b"77777777", b'"\\n"\\n,,,,'))
        with open(name, "wb") as file:
            file.write(data)
        try:
            items = find_clips([name])
            assert len(list(items)) == len(items)
            refused, found = refused + len(items.failures), found + len(items)
            for item in items:
                if hasattr(item.source, "fetch"):
                    item.source.fetch()
        except VGGishError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
print(refused, found)
"""


def test_damage(tmp_path) -> None:
    done = run_python(CODE, str(tmp_path), "60")
    assert done.returncode == 0, done.stderr[-2000:]
    refused, found = map(int, done.stdout.split())
    assert refused > 100 and found > 500
