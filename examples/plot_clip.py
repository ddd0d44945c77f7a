"""A figure of a clip: waveform, log-mel spectrogram, and the embedding of each window.

    python examples/plot_clip.py CLIP PICTURE.png [WEIGHTS]

The same as "vggish-pt plot CLIP --out PICTURE.png". Needs matplotlib: pip install "vggish_pt[plot]"
"""

import sys
from pathlib import Path

from vggish_pt import VGGish
from vggish_pt.plot import plot_clip, save

clip, picture, weights = (*sys.argv[1:], "synthetic")[:3]
figure = plot_clip(VGGish.from_pretrained(weights), clip)  # in a notebook, this shows the figure
save(figure, Path(picture))
print(picture)
