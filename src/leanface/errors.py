"""LeanFace's errors: each says what happened, what was expected, and how to fix it."""

import difflib
import re
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return " Did you mean ...?" with the most similar known words, or nothing if none is similar."""
    close = difflib.get_close_matches(str(word), [str(each) for each in known])
    return f" Did you mean {' or '.join(close)}?" if close else ""


class LeanFaceError(Exception):
    """Base of every error that LeanFace raises on purpose; the command line prints it without a traceback."""

    exit_status = 1
    """With which a command ends that raises it."""


class Unfinished(LeanFaceError):
    """The time for one piece of work is over; the same command continues it."""

    exit_status = 75
    """EX_TEMPFAIL in sysexits.h."""


class ConfigError(LeanFaceError):
    """A parameter is unknown, out of range, or contradicts another one."""


class ArtifactError(LeanFaceError):
    """A file that a stage reads is missing, truncated or not what it claims to be."""


class NoFaceError(ArtifactError):
    """A photo shows no face that can be read.

    Attributes:
        found: what was found, and how to choose a better photo; the whole message also says which parameter to change,
            for those who can.
    """

    def __init__(self, found: str, parameter: str = "") -> None:
        """Say both."""
        super().__init__(f"{found} {parameter}".rstrip())
        self.found = found


class NetworkError(LeanFaceError):
    """A network has an operation or a shape that LeanFace cannot compress."""


class ExportError(LeanFaceError):
    """A network could not be exported, or its export does not compute the same function."""


class GateError(LeanFaceError):
    """The compressed network misses a limit that was set for it."""


class TrackingError(LeanFaceError):
    """MLflow cannot be reached."""


class BackendError(LeanFaceError):
    """A runtime cannot run here, or was given the wrong name, dtype or shape."""


def reason(error: BaseException) -> str:
    """Say in a line what went wrong: a LeanFaceError's own words, else the error's type and its first line.

    Addresses of objects are left out: they mean nothing to a reader, and should not leave the machine.
    """
    if isinstance(error, LeanFaceError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    words = re.sub(r"(?: at)? 0x[0-9a-fA-F]+", "", str(error).strip())
    first = words.splitlines()[0] if words else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
