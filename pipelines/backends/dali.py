"""Earlier place of `pipelines.decode.dali`, kept for scripts written before the move; version 0.2 drops it."""

import warnings

from pipelines.decode.dali import DaliBackend

__all__ = ["DaliBackend"]

warnings.warn("pipelines.backends.dali has moved: import pipelines.decode.dali", DeprecationWarning, stacklevel=2)
