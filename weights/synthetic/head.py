"""Second stage of pretraining: only the fully connected layers are trained, on cached outputs of the convolutions.

The output of the convolutions is computed once for each clip. Steps are then so cheap that a batch can hold many more
clips, among which a clip's partner has to be found, and each clip can be used in several epochs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import torch
from contrastive import descend, learning_rate
from torch import Tensor
from trainee import Head

from vggish_pt.nn.network import Network


def pair_features(network: Network, batches: Iterable[Tensor]) -> Tensor:
    """Return a head's input for batches of first and then second views: (pairs, 2, 4 * 512) bfloat16."""
    found = [Head.over_time(network.infer(batch, "conv4").float()) for batch in batches]
    return torch.cat([views.to(torch.bfloat16).unflatten(0, (2, -1)).transpose(0, 1) for views in found])


def train_head(head: Head, features: Tensor, args: argparse.Namespace, log: Path, report: TextIO = sys.stdout) -> None:
    """Train a head.

    Args:
        head: head to train.
        features: (pairs, 2, 4 * 512), see :func:`pair_features`; their device is used.
        args: pretrain.py's settings.
        log: CSV file for the learning curve.
        report: stream for progress lines.
    """
    device = features.device
    pairs, batch = len(features), min(args.head_batch, len(features))
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=args.head_lr, weight_decay=args.head_weight_decay)
    order = torch.Generator().manual_seed(args.head_seed)
    steps, step = args.head_epochs * (pairs // batch), 0
    with log.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("step", "loss", "hits", "learning_rate"))
        for epoch in range(args.head_epochs):
            # Pairs that do not fill a batch are left out of this epoch.
            for places in torch.randperm(pairs, generator=order)[: pairs // batch * batch].split(batch):
                rate = learning_rate(step, steps, args.head_lr)
                views = features[places.to(device)].transpose(0, 1).flatten(0, 1).float()
                with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                    embeddings = head(views)
                loss, hits = descend(optimizer, embeddings, args.temperature, rate)
                rows.writerow((step, f"{loss:.4f}", f"{hits:.4f}", f"{rate:.3g}"))
                step += 1
            print(
                f"head, epoch {epoch + 1}/{args.head_epochs}  loss {loss:.3f}  hits {hits:.3f}",
                file=report,
                flush=True,
            )
