"""A picture of a clip: its log-mel spectrogram, and under each window its embedding.

    python examples/plot_clip.py CLIP PICTURE.png [WEIGHTS]

Needs matplotlib: pip install "vggish_pt[plot]"
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from vggish_pt import VGGish, load_waveform

clip, picture, weights = (*sys.argv[1:], "synthetic")[:3]
model = VGGish.from_pretrained(weights)
result = model.embed(clip)

log_mel = model.frontend.log_mel(load_waveform(clip)).numpy()

figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
seconds = len(log_mel) / 100
top.imshow(log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, 64), cmap="magma")
top.set(title=f"log-mel of {result.source.rsplit('/')[-1]}", ylabel="mel band")
values = result.values.numpy()
image = bottom.imshow(values.T, aspect="auto", extent=(0, 0.96 * len(values), 128, 0), cmap="coolwarm", interpolation="nearest")
image.set_clim(-np.abs(values).max(), np.abs(values).max())
for start in result.start.tolist():
    top.axvline(start, color="white", linewidth=0.5)
bottom.set(title="embedding, 128 numbers for each window", xlabel="seconds", ylabel="dimension")
figure.savefig(picture, dpi=110)
print(picture)
