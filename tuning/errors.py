"""The error tree of the sweep.

TuningError
  TrackingError                 the MLflow store cannot be used as asked
    StoreUnavailableError       it does not answer now; the same request may succeed later
  StorageError                  where sweeps are kept cannot be read or written
  ReplacedError                 another process runs the sweep or trial by now
  SweepInterrupted              the user stopped the sweep; it can be resumed
"""


class TuningError(Exception):
    """Something that the person who runs a sweep can act on; its text is one clear line."""


class TrackingError(TuningError):
    """The MLflow store cannot be used as asked: it is misplaced, or it refuses the request."""


class StoreUnavailableError(TrackingError):
    """The MLflow store does not answer now; the same request may succeed later."""


class StorageError(TuningError):
    """Where sweeps are kept cannot be read or written."""


class ReplacedError(TuningError):
    """Another process runs the sweep or trial by now, and what this one does counts no more."""


class SweepInterrupted(TuningError):  # noqa: N818 - no error: what the user asked for
    """The user stopped the sweep; it can be resumed."""
