"""Libraries that may be absent, or installed but unusable: imported here, where they are needed, with a clear error."""

from __future__ import annotations

import importlib
from types import ModuleType

from vggish_pt.errors import MissingDependencyError

_EXTRAS = {
    "resampy": "resampy",
    "mteb": "mteb",
    "matplotlib": "plot",
    "sounddevice": "mic",
    "s3fs": "s3",
    "gcsfs": "gs",
    "aiohttp": "http",
    "ray": "ray",
    "lightning": "classify",
    "skops": "classify",
    "tensorboard": "classify",
}
_TORCHAUDIO_ADVICE = (
    'install matching builds, for example: pip install "torch==2.11.0" "torchaudio==2.11.0", or do without it '
    '(resampler="soxr")'
)


def require(module: str, purpose: str) -> ModuleType:
    """Imports an optional library.

    Args:
        module: its import name.
        purpose: what it is needed for, as in "reading M4A".

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded; the message says what to do.
    """
    package = module.split(".", maxsplit=1)[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that was built for another one's version may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if package == "torchaudio":
            problem = f"torchaudio, which cannot be loaded here ({reason})"
            advice = _TORCHAUDIO_ADVICE
        elif isinstance(error, ImportError):
            problem = f"{module} ({reason})"
            extra = _EXTRAS.get(package)
            advice = "install it with: pip install " + (f'"vggish_pt[{extra}]"' if extra else package)
        else:
            problem = f"{module}, which is installed but cannot be loaded ({reason})"
            advice = f"install it again: pip install --force-reinstall {package}"
        raise MissingDependencyError(f"{purpose} needs {problem}; {advice}") from error
