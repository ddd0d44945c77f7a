"""Engine of one machine: it embeds in this process, and reads ahead in threads or processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from vggish_pt.audio.clip import Clip
from vggish_pt.dataset.outcomes import Outcome, outcome
from vggish_pt.dataset.schema import RowPooling
from vggish_pt.inference.settings import EmbedSettings

if TYPE_CHECKING:
    from vggish_pt.model import VGGish


def local_outcomes(
    model: VGGish | Sequence[VGGish],
    items: Iterable[Clip],
    settings: EmbedSettings,
    *,
    pool: RowPooling = "none",
    workers: int = 1,
    processes: bool | None = False,
    ordered: bool = True,
) -> Generator[Outcome]:
    """Embed inputs on this machine. Closing the iterator early stops its threads and processes.

    Args:
        model: the model, or replicas of it on several devices.
        items: the inputs.
        settings: settings that decide the numbers.
        pool: "none" for a row per window, "mean" for a row per input.
        workers: number of threads or processes that read ahead; 0 reads in the calling thread.
        processes: True reads ahead in processes, False in threads, None chooses. See
            :func:`vggish_pt.inference.embed_clips`.
        ordered: True yields outcomes in the order of the inputs; False yields each as soon as it is complete.

    Yields:
        One outcome for each input: an :class:`vggish_pt.dataset.EmbeddedClip` or a :class:`vggish_pt.dataset.Failure`.

    Raises:
        SettingsError: the settings do not fit the model.
        WorkerError: worker processes cannot be started.
    """
    from vggish_pt.inference.pipeline import embed_clips

    results = embed_clips(model, items, settings, workers=workers, processes=processes, ordered=ordered)
    with closing(results):
        for item, result in results:
            yield outcome(item, result, settings, pool)
