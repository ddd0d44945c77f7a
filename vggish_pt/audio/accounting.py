"""Comparison of the audio that a file should have with the audio that was decoded, for all formats."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vggish_pt.audio.decoder import Decoder, Samples
from vggish_pt.audio.structure import Loss, Stream
from vggish_pt.errors import AudioError, AudioWarning

_ADVICE = "get it again, or allow truncated files (allow_truncated=True, --allow-truncated)"
_MAX_WARNED = 8
_TOUCHING = 1e-4  # seconds


@dataclass
class Accounting:
    """Record of the audio that is missing from a file: an error, or a warning if the caller allows it.

    Attributes:
        name: name of the file in errors.
        allow_truncated: True warns of missing audio and uses the rest.
        elapsed: duration in seconds of the streams decoded so far, including their missing audio.
        losses: number of places at which audio was found missing.
    """

    name: str
    allow_truncated: bool
    elapsed: float = 0.0
    losses: int = 0
    _unsettled: Loss | None = None
    _warned: int = 0

    def report(self, loss: Loss) -> None:
        """Report missing audio; its times count from the start of the current stream."""
        self.losses += 1
        end = None if loss.end is None else self.elapsed + loss.end
        loss = replace(loss, start=self.elapsed + loss.start, end=end)
        last = self._unsettled
        if last is not None and last.end is not None and loss.start - last.end < _TOUCHING and not loss.readable:
            self._unsettled = replace(last, end=loss.end, at_end=last.at_end and loss.at_end)
            return
        self.settle()
        self._unsettled = loss

    def settle(self) -> None:
        """Raise or warn about the last reported loss, which cannot be merged with the next one.

        Raises:
            AudioError: missing audio is not allowed.
        """
        loss, self._unsettled = self._unsettled, None
        if loss is None:
            return
        start, end = loss.start, loss.end
        used = "using the readable audio before and after it"
        if loss.readable:
            message = (
                f"the audio ends at {start:.3f} s by the file's header, but continues{_until(end)} ({loss.reason})"
            )
            used = "using all of it"
        elif loss.at_end:
            detail = loss.reason if start == 0 and not end else f"{loss.reason}: {start:.3f} s{_of(end)}"
            message, used = f"the file is truncated: {detail}", "using the readable audio"
        else:
            message = f"damaged or truncated: cannot be decoded beyond {start:.3f} s{_until(end)} ({loss.reason})"
            used = "using the readable audio" if end is None else used
        self._refuse(message, used)

    def _refuse(self, message: str, used: str) -> None:
        if not self.allow_truncated:
            raise AudioError(f"{self.name}: {message}; {_ADVICE}", self.name)
        self._warned += 1
        if self._warned <= _MAX_WARNED:
            more = "; further places are not listed" if self._warned == _MAX_WARNED else ""
            warnings.warn(f"{self.name}: {message}; {used}{more}", AudioWarning, stacklevel=2)

    def report_unknown(self, count: int) -> None:
        """Warn of bytes that are neither audio nor metadata of a known kind."""
        warnings.warn(
            f"{self.name}: {count} bytes are neither audio nor tags of a known kind; they are ignored",
            AudioWarning,
            stacklevel=2,
        )

    def blocks(self, stream: Stream, decoder: Decoder[Samples | Loss], first: int = 0) -> Iterator[Samples]:
        """Iterate over the samples of one stream, and report those that are missing.

        Args:
            stream: the stream, as the structure of the file describes it.
            decoder: decoder of the stream.
            first: samples per channel that the decoder skips.

        Yields:
            (n, channels) float64.

        Raises:
            AudioError: audio is missing.
        """
        rate = decoder.sample_rate
        expected = sorted(stream.losses, key=lambda loss: loss.after)
        decoded, missing, before, failed = first, 0.0, self.losses, False
        for block in decoder.blocks:
            if isinstance(block, Loss):
                if self._is_complete(stream, decoded, rate):
                    break  # bytes after the audio confuse the decoder
                missing += (block.end or block.start) - block.start
                failed = failed or block.end is None
                self._report_failure(block, decoded)
                continue
            while expected and expected[0].after * rate < decoded + len(block):
                loss = expected.pop(0)
                cut = max(0, round(loss.after * rate) - decoded)
                if cut:
                    self.settle()
                    yield block[:cut]
                block, decoded = block[cut:], decoded + cut
                missing += (loss.end or loss.start) - loss.start
                self.report(loss)
            if len(block):
                self.settle()
                yield block
            decoded += len(block)
        for loss in expected:
            self.report(_complete(loss, decoded / rate, decoder.frames, rate))
            missing += max(0.0, (loss.end or 0.0) - loss.start) if math.isfinite(loss.start) else 0.0
        if self.losses == before and not failed:
            self._compare(stream, decoder, decoded)
        self.elapsed += decoded / rate + missing

    def _is_complete(self, stream: Stream, decoded: int, rate: int) -> bool:
        return stream.seconds is not None and not stream.losses and decoded >= round(stream.seconds * rate)

    def _report_failure(self, loss: Loss, decoded: int) -> None:
        if decoded == 0 and loss.end is None and self.elapsed == 0:
            raise AudioError(f"{self.name}: damaged or truncated: cannot be decoded ({loss.reason})", self.name)
        self.report(loss)

    def _compare(self, stream: Stream, decoder: Decoder[Samples | Loss], decoded: int) -> None:
        rate = decoder.sample_rate
        declared = 0.0 if decoder.frames is None else (decoder.frames - decoder.slack) / rate
        counted = 0.0 if stream.seconds is None else stream.seconds - stream.slack
        if decoded < round(max(declared, counted) * rate):
            whole = max(decoder.frames or 0, round((stream.seconds or 0.0) * rate)) / rate
            reason = "it is shorter than its header says"
            self.report(Loss(decoded / rate, decoded / rate, whole, reason, at_end=True))


def _complete(loss: Loss, seconds: float, frames: int | None, rate: int) -> Loss:
    """Return a loss with the times that are known only at the end."""
    if math.isfinite(loss.start):
        return loss
    end = frames / rate if frames is not None and frames / rate > seconds else None
    return replace(loss, after=seconds, start=seconds, end=end)


def _until(end: float | None) -> str:
    return "" if end is None else f" up to {end:.3f} s"


def _of(end: float | None) -> str:
    return "" if end is None else f" of {end:.3f} s"
