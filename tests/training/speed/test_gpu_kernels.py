"""Settings of GPU kernels last as long as the run, and touch nothing on a CPU."""

import pytest
import torch

from training.speed.gpu_kernels import gpu_kernels
from training.speed.speed_config import SpeedConfig


def settings() -> tuple[bool, bool, bool]:
    backends = torch.backends
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark


@pytest.mark.parametrize("is_on", [True, False])
def test_settings_are_put_back(is_on: bool) -> None:
    before = settings()
    config = SpeedConfig(tf32=is_on, cudnn_benchmark=is_on)
    with gpu_kernels(config, torch.device("cuda")):
        assert settings() == (is_on, is_on, is_on)
    assert settings() == before


def test_a_run_on_a_cpu_changes_nothing() -> None:
    before = settings()
    with gpu_kernels(SpeedConfig(), torch.device("cpu")):
        assert settings() == before
