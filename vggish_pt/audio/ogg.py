"""Pages of Ogg: streams one after the other, and pages that are damaged, cut or missing.

libsndfile reads only the first of several streams, and skips damaged pages without an error.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from vggish_pt.audio.structure import SNDFILE, Loss, Stream, Structure
from vggish_pt.audio.tags import skip_metadata
from vggish_pt.audio.view import Scanner

_HEADER_BYTES = 27
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255
_MAX_STREAMS = 10_000
_MAX_FALSE_PAGES = 10_000  # in a row: a hostile file
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_NO_GRANULE = (1 << 64) - 1
_OPUS_RATE = 48_000

# Ogg's checksum is that of zlib with the bits of each byte, and of the result, in the other order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Page:
    start: int
    end: int
    flags: int
    granule: int
    serial: bytes
    goes_on: bool  # the last packet continues on the next page
    body: bytes


@dataclass
class _Link:
    """Streams that run side by side, from where they begin to where the next ones do."""

    start: int
    end: int = 0
    rates: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # of granules, and the number to skip
    seconds: float = 0.0
    finished: bool = False
    goes_on: bool = False
    losses: list[tuple[float, int, int]] = field(default_factory=list)  # seconds before, bytes, index in ``ends``
    ends: list[float] = field(default_factory=list)  # seconds after each loss

    def time(self, page: _Page) -> float | None:
        """Return the seconds at the end of a page; None if it does not say."""
        rate, skip = self.rates.get(page.serial, (0, 0))
        return None if not rate or page.granule == _NO_GRANULE else max(0, page.granule - skip) / rate


def checksum(page: bytes) -> int:
    """Return the checksum of a page whose own field for it is zeroed."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED), "big")


def _read_page(scanner: Scanner, position: int) -> _Page | None:
    """Return the page at a position; None if there is none that is complete and valid."""
    head = scanner.read(position, _HEADER_BYTES + 255)
    if head[:4] != b"OggS" or len(head) < _HEADER_BYTES or len(head) < _HEADER_BYTES + (count := head[26]):
        return None
    lacing = head[_HEADER_BYTES : _HEADER_BYTES + count]
    length = _HEADER_BYTES + count + sum(lacing)
    page = scanner.read(position, length)
    if len(page) < length or checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
        return None
    granule = int.from_bytes(page[6:14], "little")
    goes_on = bool(lacing) and lacing[-1] == 255
    body = page[_HEADER_BYTES + count :][:64]
    return _Page(position, position + length, page[5], granule, page[14:18], goes_on, body)


def _find_page(scanner: Scanner, start: int) -> _Page | None:
    failed = 0
    for base, data in scanner.blocks(start, scanner.size, 3):
        at = data.find(b"OggS")
        while at >= 0:
            page = _read_page(scanner, base + at)
            failed += 1
            if page is not None or failed > _MAX_FALSE_PAGES:
                return page
            at = data.find(b"OggS", at + 1)
    return None


def _rate(body: bytes) -> tuple[int, int]:
    """Return the rate of a stream's granules, and their number before its first sample; 0 for video and text."""
    if body[:7] == b"\x01vorbis":
        return int.from_bytes(body[12:16], "little"), 0
    if body[:8] == b"OpusHead":
        return _OPUS_RATE, int.from_bytes(body[10:12], "little")
    if body[:5] == b"\x7fFLAC":
        return int.from_bytes(body[27:30], "big") >> 4, 0
    if body[:8] == b"Speex   ":
        return int.from_bytes(body[36:40], "little"), 0
    return 0, 0


def parse(scanner: Scanner, start: int = 0) -> Structure:
    """Find the streams of an Ogg file.

    Args:
        scanner: the file.
        start: where the first page begins.
    """
    links: list[_Link] = []
    position, unknown, began = start, 0, False
    page = _read_page(scanner, start)
    while position < scanner.size:
        if page is None:
            after = skip_metadata(scanner, position)
            page = _find_page(scanner, after)
            stop = scanner.size if page is None else page.start
            unknown += _note_gap(links, after, stop, page)
            if page is None:
                break
        if page.flags & _FIRST and not began:
            if links:
                links[-1].end = page.start
            links.append(_Link(page.start))
        began = bool(page.flags & _FIRST)
        if links:
            _take(links[-1], page)
        else:
            unknown += page.end - page.start
        position = page.end
        page = _read_page(scanner, position)
    if not links:
        lost = Loss(0.0, 0.0, None, "it holds no whole page", at_end=True)
        return Structure([Stream([(start, scanner.size)], SNDFILE, "Ogg", fallback="ogg", losses=[lost])])
    plain = len(links) == 1 and links[0].start == 0 and links[0].end == scanner.size
    streams = [_stream(link) for link in links[:_MAX_STREAMS]]
    if plain:
        streams[0].parts = [(0, scanner.size)]
    return Structure(streams, unknown)


def _take(link: _Link, page: _Page) -> None:
    if page.flags & _FIRST:
        link.rates[page.serial] = _rate(page.body)
    time = link.time(page)
    if time is not None:
        while len(link.ends) < len(link.losses):
            link.ends.append(max(time, link.losses[len(link.ends)][0]))
        link.seconds = max(link.seconds, time)
    link.end, link.finished, link.goes_on = page.end, bool(page.flags & _LAST), page.goes_on


def _note_gap(links: list[_Link], start: int, stop: int, page: _Page | None) -> int:
    """Record bytes between pages; return the number of those that replace no audio."""
    missing = stop - start
    if missing <= 0:
        return 0
    if not links or (links[-1].finished and (page is None or page.flags & _FIRST)):
        return missing
    links[-1].losses.append((links[-1].seconds, missing, len(links[-1].losses)))
    return 0


def _stream(link: _Link) -> Stream:
    stream = Stream([(link.start, link.end)], SNDFILE, "Ogg", fallback="ogg")
    lost = 0.0
    for begin, missing, index in link.losses:
        stop = link.ends[index] if index < len(link.ends) else None
        reason = f"{missing} bytes are no whole pages"
        stream.losses.append(Loss(begin - lost, begin, stop, reason, at_end=stop is None))
        lost += 0.0 if stop is None else stop - begin
    if link.goes_on and not link.finished and not any(loss.at_end for loss in stream.losses):
        stream.losses.append(Loss(link.seconds - lost, link.seconds, None, "it ends inside a packet", at_end=True))
    return stream
