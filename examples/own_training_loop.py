"""VGGishClassifier as a plain nn.Module in your own training loop.

python examples/own_training_loop.py
"""

import torch
from torch import nn

from vggish_pt import VGGish
from vggish_pt.classify import HeadConfig, VGGishClassifier, keep_freed_memory

keep_freed_memory()  # on a CPU, steps are faster if freed memory is reused
torch.manual_seed(0)
time = torch.arange(32_000) / 16_000
frequency = torch.empty(24, 1).uniform_(200, 4_000)
waveforms = 0.1 * torch.sin(2 * torch.pi * frequency * time)  # (24, T) at 16 kHz
labels = (frequency[:, 0] > 1_500).long()

model = VGGishClassifier(VGGish.from_pretrained("synthetic"), ["low", "high"], head=HeadConfig("attention"))
examples = model.backbone.frontend(waveforms)  # (24, w, 96, 64): w windows of each clip
model.head.fit_standardize(model.features(examples.flatten(0, 1)).detach())  # once, before training

model.backbone.network.conv1.requires_grad_(False)  # any layer can be frozen; the lowest ones cost the most
rates = [{"params": model.backbone.parameters(), "lr": 1e-4}, {"params": model.head.parameters(), "lr": 3e-4}]
optimizer = torch.optim.AdamW(rates)

model.train()
for step in range(6):
    batch = torch.randperm(len(labels))[:8]
    loss = nn.functional.cross_entropy(model(examples[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.3f}")

model.save_pretrained("low_or_high")
model = VGGishClassifier.from_pretrained("low_or_high")
prediction = model.predict(waveforms[0], sample_rate=16_000)
print(prediction.best, dict(zip(prediction.labels, prediction.scores.tolist(), strict=True)))
