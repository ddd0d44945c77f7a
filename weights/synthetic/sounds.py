"""Generator of sound: random recipes of layered synthesizers, and perturbed copies of them.

A *recipe* describes a batch of clips by numbers in [0, 1] ("knobs"). A recipe with slightly changed knobs gives similar
clips (:func:`perturb`). Everything else in a clip (noise, times of random events, the start within its rhythm) is drawn
at each rendering, as in another cut from a longer recording.

    recipe = draw(64, generator)
    first = render(recipe, generator)
    second = render(perturb(recipe, 0.1, 0.3, generator), generator)

Everything runs in batches on the generator's device. Time is circular: the tail of a filter or room beyond a clip's end
continues at its start, as if the sound had begun earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from vggish_pt.constants import EXAMPLE_SAMPLES, SAMPLE_RATE

MAX_LAYERS = 3
LAYER_KNOBS = 40
CLIP_KNOBS = 16
TAU = 2 * math.pi


@dataclass(frozen=True)
class Recipe:
    """Description of a batch of clips.

    Attributes:
        family: (n, MAX_LAYERS) int64, index into :data:`FAMILIES`, or -1 if the clip has no such layer.
        layers: (n, MAX_LAYERS, LAYER_KNOBS) in [0, 1].
        clips: (n, CLIP_KNOBS) in [0, 1]: room, equaliser, noise and level of the whole clip.
    """

    family: Tensor
    layers: Tensor
    clips: Tensor


class Knobs:
    """Reader of numbers in [0, 1] as physical quantities, column after column; each is (n, 1)."""

    def __init__(self, unit: Tensor) -> None:
        self._columns = iter(unit.unbind(1))

    def linear(self, low: float, high: float) -> Tensor:
        """Return the next column, mapped linearly to [low, high]."""
        return low + (high - low) * next(self._columns)[:, None]

    def log(self, low: float, high: float) -> Tensor:
        """Return the next column, mapped logarithmically to [low, high]."""
        return low * (high / low) ** next(self._columns)[:, None]

    def chance(self, probability: float) -> Tensor:
        """Return 1.0 if the next column is below ``probability``, else 0.0."""
        return (next(self._columns)[:, None] < probability).to(torch.float32)


@dataclass(frozen=True)
class Clock:
    """Rhythm of a layer, common to its source and its envelope.

    Attributes:
        since: (n, T) seconds since the last event.
        loudness: (n, T) gain of that event, in (0, 1].
        length: (n, 1) duration of an event in seconds.
        generator: random generator of the source.
    """

    since: Tensor
    loudness: Tensor
    length: Tensor
    generator: Generator

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform random numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.since.device)

    def noise(self) -> Tensor:
        """Return white noise in [-1, 1), (n, T)."""
        return self.uniform(*self.since.shape) * 2 - 1

    def wander(self, points: int) -> Tensor:
        """Return a slow random curve in [-1, 1), (n, T), through ``points`` random points."""
        curve = self.uniform(len(self.since), 1, points) * 2 - 1
        return F.interpolate(curve, size=self.since.shape[1], mode="linear", align_corners=True)[:, 0]


def _phase(frequency: Tensor) -> Tensor:
    """Return the phase in radians, (n, T), for a frequency in hertz, (n, T)."""
    return torch.cumsum(frequency, dim=1) * (TAU / SAMPLE_RATE)


def _buzz(phase: Tensor, ratio: Tensor) -> Tensor:
    """Return the sum of all harmonics, the k-th with amplitude ``ratio ** k``, by the geometric sum's closed form."""
    return (1 - ratio) * torch.sin(phase) / (1 - 2 * ratio * torch.cos(phase) + ratio * ratio)


def _harmonic_ratio(brightness: Tensor, frequency: Tensor) -> Tensor:
    # At least 40 dB down at half the sample rate, to limit aliasing.
    return torch.minimum(brightness, 0.01 ** (2 * frequency / SAMPLE_RATE))


def _pitch(knobs: Knobs, clock: Clock, low: float, high: float) -> Tensor:
    """Return a frequency in hertz, (n, T): a base with a glide over each event, vibrato and drift."""
    base = knobs.log(low, high)
    glide = knobs.linear(-1, 1) ** 3 * 2  # octaves; mostly small
    bend = knobs.linear(-1, 1) ** 3  # up and down again, or the reverse
    vibrato, rate = knobs.linear(0, 1) ** 3 * 0.15, knobs.log(3, 14)
    drift = knobs.linear(0, 1) ** 3 * 0.3
    position = (clock.since / clock.length).clamp(max=1)
    octaves = glide * (position - 0.5) + bend * torch.sin(math.pi * position)
    octaves = octaves + vibrato * torch.sin(TAU * rate * clock.since) + drift * clock.wander(12)
    return (base * 2**octaves).clamp(max=0.45 * SAMPLE_RATE)


def harmonic(knobs: Knobs, clock: Clock) -> Tensor:
    """Return a gliding tone with harmonics, vibrato and some breath; even harmonics may be weaker."""
    frequency = _pitch(knobs, clock, 60, 2500)
    ratio = _harmonic_ratio(knobs.linear(0.05, 0.98), frequency)
    hollow, breath = knobs.linear(0, 1) ** 2, knobs.linear(0, 1) ** 3 * 0.5
    phase = _phase(frequency)
    # Half a period later, even harmonics are the same and odd ones are inverted.
    tone = _buzz(phase, ratio) - hollow * _buzz(phase + math.pi, ratio)
    return tone + breath * clock.noise()


def modulated(knobs: Knobs, clock: Clock) -> Tensor:
    """Return a frequency-modulated tone: a bell, brass, hum or harsh tone, depending on ratio and depth."""
    frequency = _pitch(knobs, clock, 60, 3000)
    ratio, depth = knobs.log(0.1, 8), knobs.log(0.1, 12)
    fade = torch.exp(-clock.since / clock.length * knobs.linear(0, 3))
    phase = _phase(frequency)
    return torch.sin(phase + depth * fade * torch.sin(ratio * phase))


def noise(knobs: Knobs, clock: Clock) -> Tensor:
    """Return steady, rough or gated white noise, which the layer's filter colours."""
    rate, depth = knobs.log(15, 400), knobs.linear(0, 1) ** 2
    flutter = 1 - depth * (0.5 + 0.5 * torch.sin(_phase(rate * (1 + 0.3 * clock.wander(24)))))
    return clock.noise() * flutter


def grains(knobs: Knobs, clock: Clock) -> Tensor:
    """Return random impulses, from single crackles to a dense stream, each ringing like a small body."""
    rate, spread = knobs.log(2, 4000), knobs.linear(0, 4)
    ring, frequency, tonal = knobs.log(0.0003, 0.03), knobs.log(200, 6500), knobs.linear(0, 1)
    impulses = (clock.uniform(*clock.since.shape) * SAMPLE_RATE < rate).float()
    # One number gives sign and strength; strengths cover orders of magnitude.
    size = clock.noise()
    impulses = impulses * size.sign() * size.abs() ** spread
    time = torch.arange(clock.since.shape[1], device=clock.since.device) / SAMPLE_RATE
    body = tonal * torch.cos(TAU * frequency * time) + (1 - tonal) * clock.noise()
    return _convolve(impulses, body * torch.exp(-time / ring))


def struck(knobs: Knobs, clock: Clock) -> Tensor:
    """Return a plucked or struck body: six modes between a string's and a plate's, which decay after each event."""
    base, stretch, decay = knobs.log(80, 3000), knobs.linear(0, 1), knobs.log(0.005, 1.0)
    damping, brightness = knobs.linear(0, 1.5), knobs.linear(0.3, 1)
    click = knobs.linear(0, 1) ** 2
    out = click * clock.noise() * torch.exp(-clock.since / 0.002)
    for mode in range(1, 7):
        frequency = base * mode ** (1 + stretch) * (1 + 0.2 * stretch * (knobs.linear(-1, 1)))
        audible = (frequency < 0.45 * SAMPLE_RATE).float()
        ringing = torch.exp(-clock.since * (mode**damping / decay))
        out = out + audible * brightness ** (mode - 1) * ringing * torch.sin(TAU * frequency * clock.since)
    return out


def voice(knobs: Knobs, clock: Clock) -> Tensor:
    """Return calls and syllables: three formants over a gliding pitch, from one vowel to another in each event."""
    pitch = _pitch(knobs, clock, 70, 1000)
    breath, width = knobs.linear(0, 1) ** 3, knobs.log(0.06, 0.3)
    position = (clock.since / clock.length).clamp(max=1)
    phase = _phase(pitch)
    out = breath * clock.noise()
    for low, high, gain in ((250, 1100, 1.0), (700, 2600, 0.7), (2200, 4500, 0.4)):
        first, last = knobs.log(low, high), knobs.log(low, high)
        formant = first + (last - first) * position
        # Modified FM: a bell of harmonics, ``width`` of the formant's frequency wide, around a carrier that blends
        # the two harmonics next to the formant.
        order = formant / pitch
        below = order.floor()
        blend = order - below
        bell = torch.exp((width * order).clamp(max=20) ** 2 * (torch.cos(phase) - 1))
        out = out + gain * bell * ((1 - blend) * torch.cos(below * phase) + blend * torch.cos((below + 1) * phase))
    return out


def engine(knobs: Knobs, clock: Clock) -> Tensor:
    """Return a motor, rotor or purr: a buzz at the firing rate, and puffs of noise at the same rate."""
    rate, unsteady = knobs.log(5, 250), knobs.linear(0, 1) ** 2 * 0.4
    load = 2 ** (unsteady * clock.wander(6) + 0.1 * unsteady * clock.wander(200))
    phase = _phase(rate * load)
    puff = torch.exp(knobs.log(0.3, 12) * (torch.cos(phase) - 1))
    uneven = 1 - knobs.linear(0, 1) ** 2 * (0.5 + 0.5 * torch.cos(phase / 4))
    tonal = knobs.linear(0, 1)
    return (tonal * 2 * _buzz(phase, knobs.linear(0.5, 0.98)) + (1 - tonal) * clock.noise() * puff) * uneven


def drops(knobs: Knobs, clock: Clock) -> Tensor:
    """Return drops, chirps and clicks: a short tone after each event, with rising or falling pitch."""
    frequency, run = knobs.log(300, 5500), knobs.linear(-1, 1) * 3
    decay, buzz = knobs.log(0.003, 0.2), knobs.linear(0, 1) ** 2
    moving = frequency * 2 ** (run * (1 - torch.exp(-clock.since / decay)))
    phase = _phase(moving.clamp(max=0.45 * SAMPLE_RATE))
    tone = torch.sin(phase + 2 * buzz * torch.sin(phase))
    return tone * torch.exp(-clock.since / decay) * (1 - torch.exp(-clock.since / 0.001))


def weather(knobs: Knobs, clock: Clock) -> Tensor:
    """Return wind, surf or rain: noise with slowly changing level and colour, with or without patter."""
    slow, fast = knobs.linear(0, 2.5), knobs.linear(0, 1) ** 2
    swell = torch.exp(slow * clock.wander(5) + fast * clock.wander(40))
    white = clock.noise()
    # Two colours of the same noise, crossfaded: a running mean for the dark one.
    dark = F.avg_pool1d(white[:, None], 9, stride=1, padding=4, count_include_pad=False)[:, 0] * 3
    mix = (0.5 + knobs.linear(0, 1) * clock.wander(7)).clamp(0, 1)
    rate, strength = knobs.log(20, 1500), knobs.linear(0, 1) ** 2 * 8
    patter = (clock.uniform(*white.shape) * SAMPLE_RATE < rate).float() * strength
    return (mix * white + (1 - mix) * dark) * swell + patter * white


FAMILIES: dict[str, Callable[[Knobs, Clock], Tensor]] = {
    f.__name__: f for f in (harmonic, modulated, noise, grains, struck, voice, engine, drops, weather)
}
"""Sources by name. Each takes (knobs, clock) and returns (n, T)."""


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    product = torch.fft.rfft(x) * torch.fft.rfft(kernel)
    out: Tensor = torch.fft.irfft(product, n=x.shape[1])
    return out


def _rms(x: Tensor) -> Tensor:
    """Return the root mean square (n, 1) of (n, T), never 0."""
    return x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)


def _clock(knobs: Knobs, rows: int, samples: int, generator: Generator) -> tuple[Clock, Tensor]:
    """Return the rhythm of layers, and their envelope (rows, T)."""
    device = generator.device
    period, attack, hold = knobs.log(0.06, 2.5), knobs.log(0.001, 0.15), knobs.log(0.005, 0.6)
    decay, jitter, variety = knobs.log(0.005, 0.6), knobs.linear(0, 1) ** 3, knobs.linear(0, 1) ** 2
    steady, tremble = knobs.chance(0.35), knobs.linear(0, 1) ** 3
    seconds = samples / SAMPLE_RATE
    clock = Clock(torch.empty(rows, samples, device=device), torch.empty(0), attack + hold + decay, generator)
    # At least one event begins within the first 60 % of the clip.
    start = clock.uniform(rows, 1) * torch.minimum(period, torch.full_like(period, 0.6 * seconds))
    time = torch.arange(samples, device=device) / SAMPLE_RATE - start
    beats = time / period + 0.35 * jitter * clock.wander(32)
    index = beats.floor()
    since = (beats - index) * period
    table = 10 ** (-1.5 * variety * clock.uniform(rows, 64))
    loudness = table.gather(1, index.long().clamp(-32, 31) + 32)
    clock = replace(clock, since=since, loudness=loudness)
    shape = (since / attack).clamp(max=1) * torch.exp(-F.relu(since - attack - hold) / decay) * loudness
    return clock, steady * (1 - tremble * (0.5 + 0.5 * clock.wander(16))) + (1 - steady) * shape


def _filter(knobs: Knobs, frequency: Tensor) -> Tensor:
    """Return gains (n, F) of a layer's filter: tilt, two resonances, a low and a high cut."""
    octave = torch.log2(frequency.clamp(min=20) / 1000)
    level = knobs.linear(-9, 3) * octave
    for _ in range(2):
        centre, width, height = knobs.linear(-3, 2.8), knobs.log(0.08, 1.5), knobs.linear(-12, 30)
        level = level + height * torch.exp(-(((octave - centre) / width) ** 2))
    low, high = knobs.linear(-5, 1.5), knobs.linear(-0.5, 3.5)
    level = level - 18 * (F.relu(low - octave) + F.relu(octave - high))
    return torch.pow(10, level.clamp(min=-80) / 20)


def _motion(knobs: Knobs, clock: Clock, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gains (n, F) that a layer's filter moves to, and its progress (n, T) between 0 and 1.

    The filter moves over each event or randomly: a sound that starts as a thud may end as a hiss, and the reverse.
    """
    octave = torch.log2(frequency.clamp(min=20) / 1000)
    height, centre, width = knobs.linear(-1, 1) ** 3 * 30, knobs.linear(-3, 2.8), knobs.log(0.3, 2)
    tilt, wanders = knobs.linear(-1, 1) ** 3 * 8, knobs.chance(0.3)
    level = height * torch.exp(-(((octave - centre) / width) ** 2)) + tilt * octave
    within = (clock.since / clock.length).clamp(max=1)
    share = (1 - wanders) * within + wanders * (0.5 + 0.5 * clock.wander(5))
    return torch.pow(10, level.clamp(-60, 40) / 20), share


def _layers(family: Tensor, knobs: Tensor, samples: int, generator: Generator) -> Tensor:
    """Render layers of families (n,) and knobs (n, LAYER_KNOBS) to (n, samples), each with an RMS of 1."""
    device = generator.device
    out = torch.zeros(len(family), samples, device=device)
    frequency = torch.fft.rfftfreq(samples, 1 / SAMPLE_RATE, device=device)
    shared = 23  # knobs of rhythm and filter; the following belong to the source, the last is the layer's level
    for number, source in enumerate(FAMILIES.values()):
        rows = (family == number).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        common = Knobs(knobs[rows, :shared])
        clock, envelope = _clock(common, len(rows), samples, generator)
        spectrum = torch.fft.rfft(source(Knobs(knobs[rows, shared:]), clock)) * _filter(common, frequency)
        spectrum[:, 0] = 0
        further, share = _motion(common, clock, frequency)
        here, there = (torch.fft.irfft(each, n=samples) for each in (spectrum, spectrum * further))
        there = there * (_rms(here) / _rms(there))
        out[rows] = (here + share * (there - here)) * envelope
    return out / _rms(out)


def draw(batch: int, generator: Generator, families: Sequence[str] = tuple(FAMILIES)) -> Recipe:
    """Return random recipes for ``batch`` clips of one to three layers each, of the given families."""
    device = generator.device
    numbers = torch.tensor([list(FAMILIES).index(name) for name in families], device=device)
    family = numbers[torch.randint(len(numbers), (batch, MAX_LAYERS), generator=generator, device=device)]
    present = torch.rand(batch, MAX_LAYERS, generator=generator, device=device)
    wanted = torch.tensor([1.0, 0.5, 0.2][:MAX_LAYERS], device=device)
    return Recipe(
        torch.where(present < wanted, family, -1),
        torch.rand(batch, MAX_LAYERS, LAYER_KNOBS, generator=generator, device=device),
        torch.rand(batch, CLIP_KNOBS, generator=generator, device=device),
    )


def perturb(recipe: Recipe, layers: float, clips: float, generator: Generator) -> Recipe:
    """Return recipes of similar sounds.

    Args:
        recipe: the originals.
        layers: standard deviation of the change of the layers' knobs, which are reflected at 0 and 1.
        clips: standard deviation of the change of the clips' knobs (room, equaliser, noise, level).
        generator: random generator.
    """

    def move(unit: Tensor, amount: float) -> Tensor:
        step = torch.randn(unit.shape, generator=generator, device=unit.device) * amount
        return 1 - ((unit + step) % 2 - 1).abs()

    return Recipe(recipe.family, move(recipe.layers, layers), move(recipe.clips, clips))


def render(recipe: Recipe, generator: Generator, samples: int = EXAMPLE_SAMPLES) -> Tensor:
    """Render recipes.

    Args:
        recipe: recipes of n clips.
        generator: random generator of everything that the recipe leaves open; its device is used.
        samples: length of each clip at 16 kHz.

    Returns:
        (n, samples) float32, peaks between 0.0037 and 0.95.
    """
    device = generator.device
    padded = 2 ** math.ceil(math.log2(samples))  # FFTs are fast for powers of 2
    batch, family = len(recipe.family), recipe.family.flatten()
    rows = (family >= 0).nonzero()[:, 0]
    knobs = recipe.layers.flatten(0, 1)[rows]
    mix = torch.zeros(batch, padded, device=device)
    # The first layer is at full level; the last knob of further layers sets their level, 0 to 24 dB lower.
    level = 10 ** (-1.2 * knobs[:, -1:] * (rows % MAX_LAYERS > 0)[:, None])
    mix.index_add_(0, rows // MAX_LAYERS, level * _layers(family[rows], knobs, padded, generator))

    clip = Knobs(recipe.clips)
    frequency = torch.fft.rfftfreq(padded, 1 / SAMPLE_RATE, device=device)
    octave = torch.log2(frequency.clamp(min=20) / 1000)
    response = clip.linear(-3, 3) * octave
    for centre in (-2.5, -1, 0.5, 2):
        response = response + clip.linear(-6, 6) * torch.exp(-((octave - centre) ** 2))
    wet, tail = clip.linear(-0.5, 1).clamp(min=0), clip.log(0.02, 0.8)
    time = torch.arange(padded, device=device) / SAMPLE_RATE
    room = torch.rand(batch, padded, generator=generator, device=device) * 2 - 1
    room = room * torch.exp(-time / tail) * (wet / (tail * SAMPLE_RATE / 6).sqrt())
    room[:, 0] = 1
    spectrum = torch.fft.rfft(mix) * torch.fft.rfft(room) * 10 ** (response / 20)
    mix = torch.fft.irfft(spectrum, n=padded)[:, :samples]
    mix = mix / _rms(mix)

    floor, dark = 10 ** clip.linear(-4, -0.7), clip.linear(0, 1)
    hiss = torch.rand(batch, samples, generator=generator, device=device) * 2 - 1
    rumble = F.avg_pool1d(hiss[:, None], 15, stride=1, padding=7)[:, 0] * 3
    mix = mix + floor * (dark * rumble + (1 - dark) * hiss)
    peak = 0.95 * 10 ** (-2.4 * clip.linear(0, 1) ** 3)
    scaled: Tensor = mix * (peak / mix.abs().amax(1, keepdim=True).clamp(min=1e-6))
    return scaled
