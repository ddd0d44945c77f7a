"""Similarity of clips: embed a folder, average each clip's windows, compare.

python examples/similar_sounds.py
"""

from pathlib import Path

import torch

from vggish_pt import VGGish

clips = sorted(path for path in (Path(__file__).parent / "clips").iterdir() if path.is_file())

model = VGGish.from_pretrained("synthetic")
results = model.embed(clips)  # one call: windows of different files share batches
features = torch.stack([result.values.mean(dim=0) for result in results])
features = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
similarity = features @ features.T

for clip, row in zip(clips, similarity, strict=True):
    print(f"{clip.name:12}", "  ".join(f"{value:5.2f}" for value in row.tolist()))
