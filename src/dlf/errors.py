"""Errors that a user can meet; each message is one sentence that says what to do or what is wrong."""

import errno


class DlfError(Exception):
    """Base of every error raised on purpose by this package."""


class InvalidArgument(DlfError, ValueError):
    """The caller asked for something that cannot be, such as a quality of 101."""


class UnreachableSize(DlfError):
    """No file of the image has the size that was asked for; the message names the nearest that can be had."""


class FormatError(DlfError):
    """The data is not a valid ``.dlf`` stream (wrong magic, truncated, trailing bytes, ...)."""


class ChecksumError(FormatError):
    """The stream has the right form but its checksum does not fit: damaged, or written with another model."""


class UnsupportedVersion(FormatError):
    """The stream was written by a newer format version than this package reads."""


class UnknownModel(DlfError):
    """The stream or the caller names a model that is not installed."""


class BundleError(DlfError):
    """A model bundle is incomplete, damaged or of a form that this package does not read."""


class EngineError(DlfError):
    """The networks cannot be run as asked, on this machine or at all."""


class LimitExceeded(DlfError):
    """The image is larger than the configured limit, or takes longer (`TimeExceeded`)."""


class TimeExceeded(LimitExceeded):
    """The image takes longer than the configured limit."""


class ImageError(DlfError):
    """The input is not an image that can be read."""


class MissingExtra(DlfError):
    """An optional dependency is not installed; the message holds the pip line to type."""


class SiteError(DlfError):
    """A static site cannot be made: its folder is taken, or files of the runtime are missing."""


class TrainingError(DlfError):
    """A training run cannot start or go on: unfit configuration, pictures, weights or machine."""


class CheckpointError(DlfError):
    """A checkpoint to import is not of the form that the model needs."""


class SpecError(DlfError, ValueError):
    """What is to be evaluated is named in a way that cannot be understood or cannot be."""


class BatchError(DlfError):
    """A batch cannot start or go on: there is nothing to take, or its place cannot be read or written."""


NO_MEMORY = "there is not enough memory: a smaller image needs less, and so do fewer at a time"

_ALLOCATION = (
    "failed to allocate", "can't allocate", "cannot allocate", "bad alloc", "bad_alloc", "out of memory",
    "not enough memory",
)  # fmt: skip
"""What ONNX Runtime, OpenVINO, torch and Pillow say, in small letters, of memory that they did not get."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was too little memory; libraries have no common type for it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError | DlfError):
        return isinstance(error, MemoryError)
    said = str(error).lower()
    return any(words in said for words in _ALLOCATION)


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some room, or name another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG), "name another place"),
}


def reason(error: OSError) -> str:
    """Say what the system says of a file that cannot be written, and for common reasons what to do."""
    said = error.strerror or str(error)
    remedy = None if error.errno is None else _REMEDIES.get(error.errno)
    return said if remedy is None else f"{said} ({remedy})"


def reason_of(error: ValueError | OSError) -> str:
    """Say what is wrong with what a command was given, or with a file or folder of it."""
    if not isinstance(error, OSError):
        return str(error)
    where = "" if error.filename is None else f"{error.filename}: "
    return where + reason(error)


def explain(error: Exception) -> str:
    """Say in one sentence what went wrong."""
    if isinstance(error, DlfError):
        return str(error)
    if is_out_of_memory(error):
        return NO_MEMORY
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"unexpected error, please report it: {type(error).__name__}: {error}".replace("\n", " ")
