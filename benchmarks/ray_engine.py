"""The Ray engine: what the driver costs, and what is left when processes and machines are lost.

    python benchmarks/ray_engine.py driver              # inputs packed and results taken, a second
    python benchmarks/ray_engine.py speed --clips 400   # beside the local engine, on the same cores
    python benchmarks/ray_engine.py losses --clips 400  # an actor's process killed, then one of two machines taken away

The machines of `losses` are simulated by Ray on this one. Everything else is in `--help`.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from common import add_weights_option, load_model, print_machine, print_table, write_clips

from vggish_pt import VGGish
from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.engines.local import local_outcomes
from vggish_pt.dataset.engines.ray_actors import encode
from vggish_pt.dataset.engines.ray_blocks import pack
from vggish_pt.dataset.engines.ray_cluster import _ENVIRONMENT
from vggish_pt.dataset.engines.ray_engine import _outcomes, outcomes_on_ray
from vggish_pt.dataset.outcomes import EmbeddedClip, Outcome
from vggish_pt.dataset.outputs import Session, open_run, open_store
from vggish_pt.dataset.schema import Rows, output_schema
from vggish_pt.inference.settings import EmbedSettings

SETTINGS = EmbedSettings()
BLOCK, WINDOWS = 256, 10


def driver(options: argparse.Namespace) -> None:
    """What passes through the driver, without a cluster: clips of ten windows, in blocks of 256."""
    items = [Clip(f"/data/audioset/unbalanced/{i:07}.flac", i, columns={"label": "dog"}) for i in range(options.inputs)]
    began = time.perf_counter()
    packed = {i // BLOCK: pack(items[i : i + BLOCK]) for i in range(0, len(items), BLOCK)}
    packing = time.perf_counter() - began
    size = sum(map(len, packed.values())) / len(items)
    values = np.random.default_rng(0).standard_normal((WINDOWS, 128)).astype(np.float32)
    times = np.arange(WINDOWS) * 0.96

    def done(item: Clip) -> EmbeddedClip:
        rows = Rows(item.path, np.arange(WINDOWS, dtype=np.int32), times, times + 0.975, values, item.columns, 10.0)
        return EmbeddedClip(item, rows, WINDOWS, 10.0)

    tables = [encode(i, enumerate(map(done, items[i * BLOCK : (i + 1) * BLOCK]))) for i in packed]
    wire = sum(table.nbytes for table in tables) / len(items) / WINDOWS
    began = time.perf_counter()
    count = sum(1 for _ in _outcomes(iter(tables), dict(packed)))
    taking = time.perf_counter() - began
    assert count == len(items)
    with tempfile.TemporaryDirectory() as folder:
        import pyarrow as pa

        schema = output_schema(
            VGGish.from_pretrained("synthetic"), SETTINGS, columns=pa.schema([("label", pa.string())])
        )
        began = time.perf_counter()
        with open_run(open_store(str(Path(folder) / "out")), schema, Session("x", {})) as run:
            run.plan(Listed(items), [])
            for each in _outcomes(iter(tables), dict(packed)):
                run.add(each)
            run.finish()
        writing = time.perf_counter() - began
    print_table(
        ["step", "inputs/s", "windows/s", "bytes"],
        [
            ["inputs packed", f"{len(items) / packing:,.0f}", "", f"{size:.0f} an input"],
            ["results taken", f"{count / taking:,.0f}", f"{count * WINDOWS / taking:,.0f}", f"{wire:.0f} a window"],
            ["taken and written", f"{count / writing:,.0f}", f"{count * WINDOWS / writing:,.0f}", ""],
        ],
    )


class Listed(list[Clip]):
    """Clips as an output wants them."""

    segments = False


def _all(results: Iterator[Outcome]) -> tuple[float, dict[int, Outcome], float]:
    """Seconds from the first result to the last, the results, and seconds until the first."""
    began = time.perf_counter()
    first = None
    found: dict[int, Outcome] = {}
    with closing(results):  # type: ignore[type-var]
        for each in results:
            first = first or time.perf_counter()
            assert each.item is not None and each.item.index not in found, "an input came twice"
            found[each.item.index] = each
    return time.perf_counter() - began, found, (first or began) - began


def _difference(found: dict[int, Outcome], expected: dict[int, Outcome]) -> str:
    assert found.keys() == expected.keys(), "inputs are missing"
    pairs = [(found[key], expected[key]) for key in expected]
    return f"{max(np.abs(a.rows.embedding - b.rows.embedding).max() for a, b in pairs):.1e}"


def speed(options: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        items, folder, model = _inputs(Path(name), options)
        seconds, expected, _ = _all(local_outcomes(model, items, SETTINGS, workers=options.workers))
        rows.append(["local", f"{seconds:.1f}", "", ""])
        for actors in (1, 2):
            seconds, found, start = _all(
                outcomes_on_ray(folder, items, SETTINGS, device="cpu", actors=actors, workers=options.workers)
            )
            rows.append([f"ray, actors: {actors}", f"{seconds:.1f}", f"{start:.1f}", _difference(found, expected)])
    print_table(["engine", "seconds", "until the first result", "largest difference"], rows)


def losses(options: argparse.Namespace) -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    rows = []
    with tempfile.TemporaryDirectory() as name:
        items, folder, model = _inputs(Path(name), options)
        _, expected, _ = _all(local_outcomes(model, items, SETTINGS, workers=options.workers))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        ray.init(address=cluster.address, log_to_driver=False, logging_level=50)
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()

        def kill_process() -> None:
            pid = _actors()[0]
            os.kill(pid, signal.SIGKILL)

        def lose_machine() -> None:
            cluster.remove_node(second, allow_graceful=False)

        for what, action in (("nothing", None), ("an actor's process", kill_process), ("a machine", lose_machine)):
            results = outcomes_on_ray(folder, items, SETTINGS, device="cpu", actors=2, workers=options.workers)
            seconds, found, _ = _all(_disturbed(results, len(items) // 3, action))
            rows.append([what, len(found), f"{seconds:.1f}", _difference(found, expected)])
        ray.shutdown()
        cluster.shutdown()
    print_table(["lost half-way", "inputs", "seconds", "largest difference"], rows)


def _disturbed(results: Iterator[Outcome], after: int, action: Callable[[], None] | None) -> Iterator[Outcome]:
    for number, each in enumerate(results):
        if number == after and action is not None:
            threading.Thread(target=action).start()
        yield each


def _actors() -> list[int]:
    """Processes of the pool, by the names that Ray gives them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and "MapWorker" in title:
            found.append(int(folder.name))
    return found


def _inputs(folder: Path, options: argparse.Namespace) -> tuple[list[Clip], Path, Any]:
    (folder / "clips").mkdir()
    paths = write_clips(folder / "clips", options.clips, options.seconds)
    load_model(options.weights).save_pretrained(folder / "model")
    return [Clip(path, i) for i, path in enumerate(paths)], folder / "model", VGGish.from_pretrained(folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["driver", "speed", "losses"])
    parser.add_argument("--inputs", type=int, default=100_000, help="for driver")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip")
    parser.add_argument("--workers", type=int, default=1)
    add_weights_option(parser)
    options = parser.parse_args()
    print_machine()
    warnings.simplefilter("ignore", DeprecationWarning)
    {"driver": driver, "speed": speed, "losses": losses}[options.what](options)


if __name__ == "__main__":
    main()
