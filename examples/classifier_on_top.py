"""A scikit-learn classifier on frozen embeddings, for synthesised tones and noise.

python examples/classifier_on_top.py
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vggish_pt import VGGish

rng = np.random.default_rng(0)
time = np.arange(16_000) / 16_000
tones = [0.1 * np.sin(2 * np.pi * rng.uniform(200, 4_000) * time) for _ in range(20)]
noises = [0.1 * rng.standard_normal(16_000) for _ in range(20)]

model = VGGish.from_pretrained("synthetic")
results = model.embed([*tones, *noises], sample_rate=16_000)
features = np.stack([result.values.mean(dim=0).numpy() for result in results])
labels = ["tone"] * 20 + ["noise"] * 20

classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
print("accuracy of each fold:", cross_val_score(classifier, features, labels, cv=5))
