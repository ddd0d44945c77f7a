"""Pretraining of the embedded model on synthetic sound only.

    python weights/synthetic/pretrain.py --out FOLDER

Contrastive learning on pairs (Cherep and Singh, "Contrastive Learning from Synthetic Audio Doppelgängers", ICLR 2025,
arXiv 2406.05923): the two views of a pair are a recipe of :mod:`sounds` and a slightly perturbed copy of it, each
rendered separately. The network learns to find a clip's partner among all other clips of the batch
(:mod:`contrastive`). The loss compares the embeddings themselves; with the usual projection, which is discarded after
training, the embeddings were worse (README.md in this folder).

A second stage (:mod:`head`) trains only the fully connected layers, in much larger batches. PCA and whitening are then
fitted to embeddings of further synthetic clips.

The sounds of a step depend only on the seed and the step's number. To resume an interrupted run, give the same
arguments again; the result is the same. ``pretrain.csv`` and ``head.csv`` in the state's folder hold the learning
curves. The second stage always starts from its beginning; after a complete first stage it can be run with other
``--head-*`` settings.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from contrastive import descend, learning_rate
from head import pair_features, train_head
from sounds import FAMILIES, draw, perturb, render
from torch import Tensor
from trainee import Trainee, fold, settle

from vggish_pt import __version__
from vggish_pt.classify.training.memory import keep_freed_memory
from vggish_pt.nn.config import VGGishConfig
from vggish_pt.nn.frontend import LogMel
from vggish_pt.nn.network import Network
from vggish_pt.pretrained.folder import write_model


class Sounds:
    """Batches of log-mel examples, each determined by the seed and the batch's number.

    Args:
        pairs: clips in a batch.
        seed: seed of the run.
        device: device of the synthesis.
        layers: perturbation of the second view's layers, see :func:`sounds.perturb`.
        clips: perturbation of the second view's room, equaliser, noise and level.
        families: families of sources.
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
        """Return batch ``number``: (2 * pairs, 96, 64), the second views after the first."""
        self.generator.manual_seed(self.seed * 1_000_003 + number)
        first = draw(self.pairs, self.generator, self.families)
        second = perturb(first, self.layers, self.clips, self.generator)
        waves = [render(recipe, self.generator) for recipe in (first, second)]
        examples: Tensor = self.frontend(torch.cat(waves))
        return examples[:, 0]


def fit_pca(network: Network, examples: Tensor) -> dict[str, np.ndarray[Any, Any]]:
    """Return mean and whitening principal axes of the embeddings of (n, 96, 64) examples, float64."""
    embeddings = network.infer(examples).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(embeddings, rowvar=False))
    values, vectors = values[::-1], vectors[:, ::-1]  # strongest first
    # Limit the scale of directions with almost no variance.
    scale = 1 / np.sqrt(np.maximum(values, 1e-6 * values[0]))
    return {"eigen_vectors": (vectors * scale).T, "means": embeddings.mean(0)}


def recipe_of(args: argparse.Namespace) -> dict[str, int | float | str]:
    """Return the settings that determine the result."""
    elsewhere = ("out", "state", "stop_at", "save_every")
    return {name: value for name, value in vars(args).items() if name not in elsewhere and value is not None}


def first_stage(recipe: dict[str, int | float | str]) -> dict[str, int | float | str]:
    """Return the settings that determine the saved state."""
    later = ("dtype", "pca_batches")
    return {name: value for name, value in recipe.items() if name not in later and not name.startswith("head_")}


def restore(
    saved: Path, settings: dict[str, int | float | str], trainee: Trainee, optimizer: torch.optim.Optimizer
) -> int:
    """Load the saved state of a run with the same settings; return the number of completed steps."""
    device = next(trainee.parameters()).device
    try:
        state = torch.load(saved, map_location=device, weights_only=True)
        known = state["settings"]
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many types for damaged files
        raise SystemExit(f"{saved}: damaged ({type(error).__name__}); delete it to start again") from None
    if known != settings:
        raise SystemExit(f"{saved}: a run with other settings; give its settings, or another --state folder")
    trainee.load_state_dict(state["trainee"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def train(
    trainee: Trainee,
    sounds: Sounds,
    args: argparse.Namespace,
    device: torch.device,
    report: TextIO = sys.stdout,
) -> bool:
    """Train up to ``--steps`` or ``--stop-at``; return True if the run is complete."""
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    args.state.mkdir(parents=True, exist_ok=True)
    saved, log = args.state / "state.pt", args.state / "pretrain.csv"
    settings = first_stage(recipe_of(args))
    start = restore(saved, settings, trainee, optimizer) if saved.exists() else 0
    rows = log.read_text().splitlines()[: start + 1] if start else ["step,loss,hits,learning_rate,seconds"]
    log.write_text("\n".join(rows) + "\n")
    trainee.train()
    end = min(args.steps, args.stop_at or args.steps)
    with log.open("a", newline="") as file:
        for step in range(start, end):
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
                projections = trainee(sounds[step])
            rate = learning_rate(step, args.steps, args.lr)
            loss, hits = descend(optimizer, projections, args.temperature, rate)
            seconds = time.perf_counter() - began
            row = (step, f"{loss:.4f}", f"{hits:.4f}", f"{rate:.3g}", f"{seconds:.2f}")
            csv.writer(file, lineterminator="\n").writerow(row)
            file.flush()
            if (step + 1) % 20 == 0:
                print(f"step {step + 1}/{args.steps}  loss {loss:.3f}  hits {hits:.3f}", file=report, flush=True)
            if (step + 1) % args.save_every == 0 or step + 1 == end:
                state = {"trainee": trainee.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "step": step + 1, "settings": settings}, saved.with_suffix(".tmp"))
                saved.with_suffix(".tmp").replace(saved)
    return bool(end == args.steps)


def finish(trainee: Trainee, sounds: Sounds, args: argparse.Namespace, device: torch.device) -> None:
    """Train the head, fold normalisation into the weights, fit PCA and write the model folder."""
    fresh = [sounds[args.steps + i] for i in range(args.pca_batches)]
    settle(trainee, fresh, args.precision)
    if args.head_epochs:
        precision = torch.bfloat16 if args.precision == "bf16" else torch.float32
        network = fold(trainee.trunk, trainee.head).to(device, precision)
        batches = -(-args.head_pairs // args.pairs)
        print(f"head: on {batches * args.pairs} pairs", flush=True)
        numbers = range(args.steps + args.pca_batches, args.steps + args.pca_batches + batches)
        features = pair_features(network, map(sounds.__getitem__, numbers))
        train_head(trainee.head, features, args, args.state / "head.csv")
        settle(trainee.head, [pair_features(network, fresh).flatten(0, 1).float()], args.precision)
    dtype = getattr(torch, args.dtype)
    network = fold(trainee.trunk, trainee.head)
    if dtype == torch.float16:
        # Round to bfloat16, so that computing in bfloat16 changes nothing; the first layer stays in float32 there.
        network = network.to(torch.bfloat16)
    weights = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    network = network.float()
    network.load_state_dict(weights)  # PCA is fitted to the output of the stored weights
    tensors = {f"network.{name}": tensor.numpy() for name, tensor in weights.items()}
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
    """Check the names of families to leave out, separated by commas."""
    names = set(text.split(","))
    if unknown := names - FAMILIES.keys():
        raise argparse.ArgumentTypeError(f"no family {min(unknown)!r}; there are {', '.join(FAMILIES)}")
    if names == FAMILIES.keys():
        raise argparse.ArgumentTypeError("no family would be left")
    return text


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the settings."""
    parser = argparse.ArgumentParser(description="Pretrain the embedded model on synthetic sound.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--state", type=Path, help="folder of the run's state and log (default: OUT.run)")
    parser.add_argument("--stop-at", type=int, help="stop after this step, to resume later")
    parser.add_argument("--save-every", type=int, default=50, help="steps between saved states (default: 50)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fc-width", type=int, default=256)
    parser.add_argument(
        "--projection",
        choices=("none", "mlp"),
        default="none",
        help="projection between embedding and loss (default: none)",
    )
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.2)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--move-layers", type=float, default=0.1)
    parser.add_argument("--move-clips", type=float, default=0.3)
    parser.add_argument("--without", type=left_out, metavar="FAMILY,...", help="families of sources to leave out")
    parser.add_argument(
        "--head-pairs", type=int, default=25_600, help="pairs of clips of the second stage (default: 25600)"
    )
    parser.add_argument(
        "--head-batch", type=int, default=512, help="pairs in a batch of the second stage (default: 512)"
    )
    parser.add_argument(
        "--head-epochs", type=int, default=6, help="epochs of the second stage; 0 skips it (default: 6)"
    )
    parser.add_argument("--head-lr", type=float, default=5e-4)
    parser.add_argument("--head-weight-decay", type=float, default=0.05)
    parser.add_argument("--head-seed", type=int, default=0)
    parser.add_argument("--pca-batches", type=int, default=16)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="type of the stored weights (default: float16)",
    )
    parser.add_argument("--threads", type=int, default=2)
    return parser


def make_sounds(args: argparse.Namespace, device: torch.device) -> Sounds:
    """Return the sounds of a run with these settings."""
    families = [name for name in FAMILIES if name not in (args.without or "").split(",")]
    return Sounds(args.pairs, args.seed, device, args.move_layers, args.move_clips, families)


def main() -> None:
    """Parse the command line and run."""
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
