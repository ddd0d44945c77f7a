"""Libraries that may be absent, or installed but unusable: imported here, where they are needed, with a clear error."""

from __future__ import annotations

import importlib
from types import ModuleType

from vggish_pt.errors import MissingDependencyError

_EXTRAS = {"av": "av", "resampy": "resampy", "matplotlib": "plot"}


def require(module: str, purpose: str) -> ModuleType:
    """Imports an optional library.

    Args:
        module: its import name.
        purpose: what it is needed for, as in "reading M4A".

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded; the message says what to do.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if module.split(".", maxsplit=1)[0] == "torchaudio":
            raise _torchaudio_error(purpose, error) from error
        extra = _EXTRAS.get(module.split(".", maxsplit=1)[0])
        advice = f'pip install "vggish_pt[{extra}]"' if extra else f"pip install {module}"
        raise MissingDependencyError(f"{purpose} needs {module} ({error}); install it with: {advice}") from error
    except (OSError, RuntimeError) as error:
        # torchaudio raises these where its binary was built for another torch: the usual case, not a rare one.
        if module.split(".", maxsplit=1)[0] == "torchaudio":
            raise _torchaudio_error(purpose, error) from error
        raise MissingDependencyError(
            f"{purpose} needs {module}, which is installed but cannot be loaded ({error})"
        ) from error


def _torchaudio_error(purpose: str, error: Exception) -> MissingDependencyError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return MissingDependencyError(
        f"{purpose} needs torchaudio, which cannot be loaded here ({reason}); install matching builds, for example "
        'pip install "torch==2.11.0" "torchaudio==2.11.0", or choose another resampler'
    )
