"""Import of optional libraries, with an error that says how to install them."""

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
    """Import an optional library and return its module.

    Args:
        module: import name of the library.
        purpose: what the library is needed for, for example "reading M4A".

    Raises:
        MissingDependencyError: the library is not installed or cannot be loaded; the message says what to do.
    """
    package = module.split(".", maxsplit=1)[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # libraries built for another version of a dependency raise any error
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
