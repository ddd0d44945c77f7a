"""Pretrains the embedded model on synthetic sound alone, and writes it as a model folder.

    python weights/synthetic/pretrain.py --out FOLDER

Contrastive learning on pairs (Cherep and Singh, "Contrastive Learning from Synthetic Audio Doppelgängers", ICLR
2025, arXiv 2406.05923): the two views of a pair are one recipe of :mod:`sounds` and a slightly moved copy of it,
each rendered anew. The network learns to find a clip's partner among all other clips of the batch (NT-Xent; Chen et
al., ICML 2020, arXiv 2002.05709), by the embedding itself: on a projection that is thrown away in the end, as is
usual, the embedding came out worse (README.md beside this file).

While training, each layer is followed by batch normalisation, which is then folded into the layer's weights: the
result is the package's plain network. PCA and whitening are fitted on embeddings of further synthetic clips.

The sounds of a step depend on the seed and the step's number only, so a run that was stopped goes on as if it had
not been: give the same arguments again. ``pretrain.csv`` beside the state holds the learning curve.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import torch
from sounds import FAMILIES, draw, perturb, render
from torch import Tensor, nn
from torch.nn import functional as F

from vggish_pt import __version__
from vggish_pt import constants as c
from vggish_pt.config import VGGishConfig
from vggish_pt.frontend import LogMel
from vggish_pt.memory import keep_freed_memory
from vggish_pt.network import Network
from vggish_pt.storage import write_model

CONVOLUTIONS = {"conv1": 64, "conv2": 128, "conv3_1": 256, "conv3_2": 256, "conv4_1": 512, "conv4_2": 512}
POOLED = ("conv1", "conv2", "conv3_2", "conv4_2")


def _layer(network: Network, name: str) -> nn.Conv2d | nn.Linear:
    return cast("nn.Conv2d | nn.Linear", network.get_submodule(name))


def _narrow(network: Network, divisor: int) -> None:
    channels = 1
    for name, full in CONVOLUTIONS.items():
        setattr(network, name, nn.Conv2d(channels, full // divisor, 3, padding=1))
        channels = full // divisor
    network.fc1 = nn.Linear(network.fc1.in_features // divisor, network.fc1.out_features)


class Trainee(nn.Module):
    """The package's network with batch normalisation after each layer, and what the loss compares.

    Args:
        fc_width: width of the fully connected layers.
        projection: ``none``, the loss compares embeddings; ``mlp``, it compares what a hidden layer of 512 makes of
            them.
        divisor: the convolutions have so many times fewer channels than VGGish's; for experiments (ablate.py), which
            then cost a fraction.
    """

    def __init__(self, fc_width: int, projection: str = "none", divisor: int = 1) -> None:
        super().__init__()
        self.network = Network(fc_width)
        if divisor > 1:
            _narrow(self.network, divisor)
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(n // divisor) for name, n in CONVOLUTIONS.items()})
        for name, width in (("fc1", fc_width), ("fc2", fc_width)):
            self.norms[name] = nn.BatchNorm1d(width)
        self.norms["embedding"] = nn.BatchNorm1d(c.EMBEDDING_SIZE, affine=False)
        self.projection: nn.Module = nn.Identity()
        if projection == "mlp":
            hidden = nn.Linear(c.EMBEDDING_SIZE, 512, bias=False)
            self.projection = nn.Sequential(hidden, nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))
        for name in self.norms:
            layer = _layer(self.network, name)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))

    def features(self, examples: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Stage by stage what (n, 96, 64) turns into: ``conv4`` (n, 512, 6, 4), ``fc2`` and ``embedding``."""
        x = examples[:, None].contiguous(memory_format=torch.channels_last)
        for name in CONVOLUTIONS:
            x = self.norms[name](self.network.get_submodule(name)(x))
            # Pooling first gives the same and leaves a quarter for the ReLU.
            x = F.relu(F.max_pool2d(x, 2) if name in POOLED else x)
        yield "conv4", x
        x = x.permute(0, 2, 3, 1).flatten(1)
        for name in ("fc1", "fc2"):
            x = F.relu(self.norms[name](self.network.get_submodule(name)(x)))
        yield "fc2", x
        yield "embedding", self.norms["embedding"](self.network.embedding(x))

    def embed(self, examples: Tensor) -> Tensor:
        """(n, 96, 64) → (n, 128), as the network does, with normalisation."""
        return dict(self.features(examples))["embedding"]

    def forward(self, examples: Tensor) -> Tensor:
        """(n, 96, 64) → (n, 128), the projections that the loss compares."""
        return cast(Tensor, self.projection(self.embed(examples)))

    @torch.no_grad()
    def folded(self) -> Network:
        """The plain network that computes the same as :meth:`embed` does in evaluation mode."""
        plain = Network(self.network.fc1.out_features)
        plain.load_state_dict(self.network.state_dict())
        for name, module in self.norms.items():
            layer, norm = _layer(plain, name), {k: v.cpu() for k, v in module.state_dict().items()}
            scale = (norm["running_var"] + cast(float, module.eps)).rsqrt() * norm.get("weight", 1.0)
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
            bias = cast(Tensor, layer.bias)
            bias.copy_((bias - norm["running_mean"]) * scale + norm.get("bias", 0.0))
        return plain.eval()


class Sounds:
    """Batches of log-mel examples, each a function of the seed and the batch's number.

    Args:
        pairs: clips in a batch.
        seed: seed of the run.
        device: where to synthesise.
        layers: how far a view's layers move from the other view's, see :func:`sounds.perturb`.
        clips: the same for room, equaliser, noise and level.
        families: of sources.
    """

    def __init__(
        self,
        pairs: int,
        seed: int,
        device: torch.device,
        layers: float,
        clips: float,
        families: Sequence[str] = tuple(FAMILIES),
    ) -> None:
        self.pairs, self.seed, self.layers, self.clips, self.families = pairs, seed, layers, clips, families
        self.generator = torch.Generator(device)
        self.frontend = LogMel(torch.float32)

    @torch.no_grad()
    def __getitem__(self, number: int) -> Tensor:
        """Batch ``number``: (2 * pairs, 96, 64), the second views after the first."""
        self.generator.manual_seed(self.seed * 1_000_003 + number)
        first = draw(self.pairs, self.generator, self.families)
        second = perturb(first, self.layers, self.clips, self.generator)
        waves = [render(recipe, self.generator) for recipe in (first, second)]
        examples: Tensor = self.frontend(torch.cat(waves))
        return examples[:, 0]


def nt_xent(projections: Tensor, temperature: float) -> tuple[Tensor, float]:
    """The loss over (2 * pairs, d) projections, and how often a clip's partner is the nearest of all."""
    z = F.normalize(projections.float(), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    target = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    hits = (similarity.argmax(1) == target).float().mean().item()
    return F.cross_entropy(similarity, target), hits


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first twentieth, then half a cosine down to 0."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def fit_pca(network: Network, examples: Tensor) -> dict[str, np.ndarray[Any, Any]]:
    """Mean and whitening principal axes of the embeddings of (n, 96, 64) examples, float64."""
    embeddings = network.infer(examples).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(embeddings, rowvar=False))
    values, vectors = values[::-1], vectors[:, ::-1]  # strongest first
    # A direction in which nothing varies is not blown up.
    scale = 1 / np.sqrt(np.maximum(values, 1e-6 * values[0]))
    return {"eigen_vectors": (vectors * scale).T, "means": embeddings.mean(0)}


def recipe_of(args: argparse.Namespace) -> dict[str, int | float | str]:
    """The settings that make the result what it is."""
    elsewhere = ("out", "state", "stop_at", "save_every", "dtype", "pca_batches")
    return {name: value for name, value in vars(args).items() if name not in elsewhere and value is not None}


def train(
    trainee: Trainee,
    sounds: Sounds,
    args: argparse.Namespace,
    device: torch.device,
    report: TextIO = sys.stdout,
) -> bool:
    """Trains up to ``--steps``, or ``--stop-at``; returns whether the run is complete."""
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    args.state.mkdir(parents=True, exist_ok=True)
    saved, log = args.state / "state.pt", args.state / "pretrain.csv"
    settings = recipe_of(args)
    start = 0
    if saved.exists():
        try:
            state = torch.load(saved, map_location=device, weights_only=True)
            known = state["settings"]
        except OSError:
            raise
        except Exception as error:  # torch raises almost anything for bytes that it did not write
            raise SystemExit(f"{saved}: damaged ({type(error).__name__}); delete it to begin again") from None
        if known != settings:
            raise SystemExit(f"{saved}: a run with other settings; give its settings, or another --state folder")
        trainee.load_state_dict(state["trainee"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    rows = log.read_text().splitlines()[: start + 1] if start else ["step,loss,hits,learning_rate,seconds"]
    log.write_text("\n".join(rows) + "\n")
    trainee.train()
    end = min(args.steps, args.stop_at or args.steps)
    with log.open("a", newline="") as file:
        for step in range(start, end):
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, args.steps, args.lr)
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                projections = trainee(sounds[step])
            loss, hits = nt_xent(projections, args.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seconds = time.perf_counter() - began
            rate = optimizer.param_groups[0]["lr"]
            row = (step, f"{loss.item():.4f}", f"{hits:.4f}", f"{rate:.3g}", f"{seconds:.2f}")
            csv.writer(file, lineterminator="\n").writerow(row)
            file.flush()
            if (step + 1) % 20 == 0:
                print(f"step {step + 1}/{args.steps}  loss {loss.item():.3f}  hits {hits:.3f}", file=report, flush=True)
            if (step + 1) % args.save_every == 0 or step + 1 == end:
                state = {"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "step": step + 1, "settings": settings}, saved.with_suffix(".tmp"))
                saved.with_suffix(".tmp").replace(saved)
    return bool(end == args.steps)


def finish(trainee: Trainee, sounds: Sounds, args: argparse.Namespace, device: torch.device) -> None:
    """Settles the normalisation's statistics, folds it in, fits PCA and writes the model folder."""
    fresh = [sounds[args.steps + i] for i in range(args.pca_batches)]
    for norm in cast("list[nn.BatchNorm2d]", list(trainee.norms.values())):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
        for batch in fresh:
            trainee(batch)
    # PCA is fitted to what the file computes.
    dtype = getattr(torch, args.dtype)
    network = trainee.folded().to(dtype).float()
    tensors = {f"network.{name}": tensor.to(dtype).numpy() for name, tensor in network.state_dict().items()}
    pca = fit_pca(network, torch.cat(fresh).cpu())
    tensors |= {f"postprocess.{name}": array for name, array in pca.items()}
    settings = recipe_of(args)
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in settings.items())
    source = {
        "command": f"python weights/synthetic/pretrain.py --out FOLDER {options}",
        "data": "sound synthesised by weights/synthetic/sounds.py; no recordings",
        "device": device.type,
        "vggish_pt": __version__,
        "torch": torch.__version__,
        **settings,
    }
    config = VGGishConfig(fc_width=args.fc_width, name="synthetic", license="Apache-2.0", source=source)
    write_model(args.out, config, tensors)


def left_out(text: str) -> str:
    """Families to leave out, separated by commas, if there are such and some are left."""
    names = set(text.split(","))
    if unknown := names - FAMILIES.keys():
        raise argparse.ArgumentTypeError(f"no family {min(unknown)!r}; there are {', '.join(FAMILIES)}")
    if names == FAMILIES.keys():
        raise argparse.ArgumentTypeError("no family would be left")
    return text


def make_parser() -> argparse.ArgumentParser:
    """The options, which are the recipe's settings."""
    parser = argparse.ArgumentParser(description="Pretrains the embedded model on synthetic sound.")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--state", type=Path, help="folder of the run's state and log; default: OUT with .run added")
    parser.add_argument("--stop-at", type=int, help="stop after this step, to go on later")
    parser.add_argument("--save-every", type=int, default=50, help="steps between saved states")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fc-width", type=int, default=256)
    parser.add_argument("--projection", choices=("none", "mlp"), default="none", help="between embedding and loss")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--move-layers", type=float, default=0.1)
    parser.add_argument("--move-clips", type=float, default=0.3)
    parser.add_argument("--without", type=left_out, metavar="FAMILY,...", help="families of sources to leave out")
    parser.add_argument("--pca-batches", type=int, default=16)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the file's weights")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def make_sounds(args: argparse.Namespace, device: torch.device) -> Sounds:
    """What a run with these settings hears."""
    families = [name for name in FAMILIES if name not in (args.without or "").split(",")]
    return Sounds(args.pairs, args.seed, device, args.move_layers, args.move_clips, families)


def main() -> None:
    """The command line."""
    args = make_parser().parse_args()
    args.state = args.state or args.out.with_name(args.out.name + ".run")

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sounds = make_sounds(args, device)
    trainee = Trainee(args.fc_width, args.projection).to(device)
    try:
        if train(trainee, sounds, args, device):
            finish(trainee, sounds, args, device)
    except OSError as error:
        raise SystemExit(f"pretrain.py: {error}") from None


if __name__ == "__main__":
    main()
