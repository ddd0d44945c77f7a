"""torchvggish 0.2 beside vggish_pt.compat: the same weights, the same files, the largest differences.

    pip install torchvggish==0.2 vggish_pt
    python benchmarks/compare_torchvggish.py CHECKPOINT --pca vggish_pca_params.npz [--golden golden.npz] FILE...

CHECKPOINT is anything that `vggish-pt convert` reads. torchvggish loads its weights from the network; here it is given
the same tensors in place of the download. Columns: windows, largest differences of the log-mel examples, of the
embeddings and of the postprocessed values, and how many of the latter are not equal. Ends with 1 if a difference is
above 1e-4.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torchvggish.torchvggish as theirs
from torchvggish import vggish_input as their_input

from vggish_pt import compat
from vggish_pt.pretrained.convert import convert

BOUND = 1e-4


def torchvggish_model(ours: compat.VGG) -> theirs.VGG:
    """torchvggish's own model, with its downloads replaced by our tensors."""
    pca = {"pca_eigen_vectors": ours.pproc.pca_eigen_vectors.numpy(), "pca_means": ours.pproc.pca_means.numpy()}
    downloads = {theirs.VGGISH_WEIGHTS: ours.state_dict(), theirs.PCA_PARAMS: pca}
    theirs.hub.load_state_dict_from_url = lambda url, **_: downloads[url]
    return theirs.vggish(postprocess=True)


def difference(a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(np.asarray(a) - np.asarray(b)).max(initial=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--pca", type=Path, help="PCA parameters, where the checkpoint has none")
    parser.add_argument("--golden", type=Path, help="NPZ with NAME/waveform and NAME/sample_rate")
    args = parser.parse_intermixed_args()

    with TemporaryDirectory() as folder:
        convert(args.checkpoint, Path(folder) / "model", pca=args.pca)
        ours = compat.vggish(weights=Path(folder) / "model")
    reference = torchvggish_model(ours)

    def inputs():
        for path in args.files:
            yield path.name, their_input.wavfile_to_examples(str(path)), compat.wavfile_to_examples(path)
        if args.golden:
            with np.load(args.golden) as archive:
                for name in sorted({key.split("/")[0] for key in archive.files}):
                    waveform, rate = archive[f"{name}/waveform"], int(archive[f"{name}/sample_rate"])
                    if waveform.dtype == np.int16:
                        waveform = waveform / 32768.0
                    yield (
                        name,
                        their_input.waveform_to_examples(waveform, rate),
                        compat.waveform_to_examples(waveform, rate),
                    )

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| input | windows | log-mel | embedding | postprocessed | not equal |")
    print("| --- | --- | --- | --- | --- | --- |")
    worst, unequal, total = np.zeros(3), 0, 0
    for name, examples_a, examples_b in inputs():
        if len(examples_a) == 0:  # torchvggish's network fails on them
            print(f"| {name} | 0 | | | | |" if len(examples_b) == 0 else f"| {name} | differ | | | | |")
            continue
        outputs = []
        for model, examples in ((reference, examples_a), (ours, examples_b)):
            with torch.no_grad():
                model.postprocess = False
                embeddings = model(examples)
                model.postprocess = True
                outputs.append((examples.detach(), embeddings, model(examples)))
        figures = np.array([difference(a, b) for a, b in zip(*outputs, strict=True)])
        different = int((outputs[0][2] != outputs[1][2]).sum()) if np.isfinite(figures[2]) else -1
        print(f"| {name} | {len(examples_a)} | " + " | ".join(f"{f:.1e}" for f in figures) + f" | {different} |")
        worst = np.maximum(worst, figures)
        unequal += different
        total += outputs[0][2].numel()
    print("| **largest** | | " + " | ".join(f"{f:.1e}" for f in worst) + f" | {unequal} of {total} |")
    sys.exit(int(worst.max() > BOUND))


if __name__ == "__main__":
    main()
