"""Errors that a user can meet; each message is one sentence that says what to do or what is wrong."""


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


def explain(error: Exception) -> str:
    """Say in one sentence what went wrong."""
    if isinstance(error, DlfError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected error, please report it: {type(error).__name__}: {error}".replace("\n", " ")
