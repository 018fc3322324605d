"""`needs_dali`: skips a test where NVIDIA DALI is not installed or cannot decode."""

import importlib

import pytest

from pipelines.base.errors import UsageError
from pipelines.decode.dali import require_dali

__all__ = ["needs_dali"]


def dali_works():
    """Loaded, and able to decode: its image codecs come in packages of their own."""
    try:
        require_dali()
        importlib.import_module("nvidia.nvimgcodec")
    except (UsageError, ImportError):
        return False
    return True


needs_dali = pytest.mark.skipif(not dali_works(), reason="NVIDIA DALI is not installed")
