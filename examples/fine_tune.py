"""VGGish as a plain nn.Module in your own training loop: the whole network is trained.

python examples/fine_tune.py
"""

import torch
from torch import nn

from vggish_pt import VGGish

torch.manual_seed(0)
time = torch.arange(16_000) / 16_000
frequency = torch.empty(16, 1).uniform_(200, 4_000)
waveforms = 0.1 * torch.sin(2 * torch.pi * frequency * time)  # (16, T) at 16 kHz
labels = (frequency[:, 0] > 1_500).long()  # high or low?

backbone = VGGish.from_pretrained("synthetic").train()
head = nn.Sequential(nn.ReLU(), nn.Linear(128, 2))  # the embedding is pre-activation, so a ReLU comes first
optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-4)

for step in range(5):
    examples = backbone.frontend(waveforms)  # (16, n, 96, 64)
    scores = head(backbone(examples.flatten(0, 1)))
    loss = nn.functional.cross_entropy(scores, labels.repeat_interleave(examples.shape[1]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.3f}")
