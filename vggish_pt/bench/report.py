"""Results of a benchmark of this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostRate:
    """Speed of a stage before the network, on one thread.

    Attributes:
        name: the stage.
        real_time: seconds of audio per second.
    """

    name: str
    real_time: float


@dataclass(frozen=True)
class NetworkRate:
    """Speed of the network with one choice of settings.

    Attributes:
        precision: "fp32", "tf32" (on CUDA devices) or "bf16".
        winograd: True if Winograd's convolutions were allowed.
        batch_size: windows per batch.
        threads: number of threads of torch, on the CPU.
        windows: windows per second, median.
        spread: (largest - smallest) / median over the rounds.
        share: share of the peak measured for the precision, with operations counted as in direct convolutions; None if
            fewer threads were used than for the peak.
    """

    precision: str
    winograd: bool
    batch_size: int
    threads: int
    windows: float
    spread: float
    share: float | None


@dataclass(frozen=True)
class Deviation:
    """Difference of one way to compute from fp32 with direct convolutions, on the audio measured.

    Attributes:
        name: "fp32, Winograd", "tf32" or "bf16".
        largest: largest difference of a value.
        cosine: lowest cosine similarity of an embedding.
    """

    name: str
    largest: float
    cosine: float


@dataclass(frozen=True)
class Recommendation:
    """Settings for ``vggish-pt embed`` on this machine.

    Attributes:
        device: the device that was measured.
        precision: the fastest precision; "fp32" unless another one is at least 1.2 times as fast, with a cosine of at
            least 0.9999.
        batch_size: the smallest batch size within 3 % of the fastest.
        workers: number of threads that load clips, enough for the network not to wait.
        real_time: seconds of audio per second, files to embeddings, measured with these settings.
    """

    device: str
    precision: str
    batch_size: int
    workers: int
    real_time: float


@dataclass(frozen=True)
class Report:
    """Result of :func:`vggish_pt.bench.bench`.

    Attributes:
        machine: description of the machine, name → text.
        weights: name of the weights.
        peak: floating-point operations per second of a matrix product and a convolution, by precision.
        host: speed of the stages before the network.
        network: speed of the network.
        deviations: differences that faster ways to compute make.
        recommended: recommended settings.
        notes: measurements that were left out, with the reason.
    """

    machine: dict[str, str]
    weights: str
    peak: dict[str, tuple[float, float]]
    host: list[HostRate]
    network: list[NetworkRate]
    deviations: list[Deviation]
    recommended: Recommendation
    notes: list[str]
