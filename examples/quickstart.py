"""Embeddings of one clip, with the small model that is included in the package.

python examples/quickstart.py
"""

from pathlib import Path

from vggish_pt import VGGish

clip = Path(__file__).parent / "clips" / "bell.ogg"

model = VGGish.from_pretrained("synthetic")
result = model.embed(clip)

print(result)
for start, end, values in zip(result.start, result.end, result.values, strict=True):
    print(f"{start:.2f} to {end:.3f} s: {values[:4].tolist()} ...")
