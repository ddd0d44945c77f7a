"""Constants that define VGGish.

Source: ``vggish_params.py`` of Google's reference implementation (tensorflow/models, research/audioset/vggish), which
gives times in seconds; the numbers of samples and frames here follow from them at 16 kHz. The model is described in
Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017, arXiv 1609.09430).
"""

from __future__ import annotations

SAMPLE_RATE = 16_000
"""Sample rate of the front end's input, in hertz."""

FRAME_LENGTH = 400
"""Samples in one STFT frame (25 ms)."""

FRAME_HOP = 160
"""Samples from one STFT frame to the next (10 ms)."""

FFT_LENGTH = 512
"""Points of the FFT: the smallest power of two that is at least a frame."""

MEL_BANDS = 64
MEL_MIN_HZ = 125.0
MEL_MAX_HZ = 7_500.0

LOG_OFFSET = 0.01
"""Added to mel magnitudes before the logarithm. (YAMNet's is 0.001; they are not interchangeable.)"""

EXAMPLE_FRAMES = 96
"""Log-mel frames in one window, the network's input."""

EXAMPLE_SAMPLES = FRAME_LENGTH + (EXAMPLE_FRAMES - 1) * FRAME_HOP
"""Samples that one window covers: 15,600."""

EXAMPLE_SECONDS = EXAMPLE_SAMPLES / SAMPLE_RATE
"""Seconds that one window covers: 0.975."""

DEFAULT_HOP_SECONDS = 0.96
"""Seconds from the start of one window to the next, with which windows share no frame."""

EMBEDDING_SIZE = 128

QUANTIZE_MIN = -2.0
QUANTIZE_MAX = 2.0
"""Range that whitened embeddings are clipped to, and that 8-bit values span."""
