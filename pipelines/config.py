"""Earlier place of `pipelines.base.config`, kept for scripts written before the move; version 0.2 drops it."""

import warnings

from pipelines.base.config import Config, apply_overrides, load_config, read_yaml, validate

__all__ = ["Config", "apply_overrides", "load_config", "read_yaml", "validate"]

warnings.warn("pipelines.config has moved: import pipelines.base.config", DeprecationWarning, stacklevel=2)
