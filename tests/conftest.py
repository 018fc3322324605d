"""Shared fixtures: small folders of shards, real data where it lies beside the repository, the RNGs put back."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.made.pictures import stored_clips, stored_images, write_folder
from tests.made.stand_in_device import StandIn, stand_in_device

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

IS_STAND_IN = os.environ.get("FOURFOLD_TEST_DEVICE") == "cpu"
"""Tests of a GPU run on the stand-in of tests/made/stand_in_device.py where there is no GPU."""


def pytest_configure() -> None:
    # A shell starts background jobs with Ctrl-C ignored, and so would every process that a test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is None or torch.cuda.is_available():
        return
    if IS_STAND_IN:
        if item.get_closest_marker("gpu_only") is not None:
            pytest.skip("needs a real GPU, and the stand-in is none")
        return
    if os.environ.get("REQUIRE_CUDA") == "1":
        pytest.fail("REQUIRE_CUDA=1, but torch sees no GPU")
    pytest.skip("no GPU")


@pytest.fixture(autouse=True)
def _rng_as_before() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    torch.random.set_rng_state(before[2])


@pytest.fixture(autouse=True)
def _stand_in_for_gpu_tests(request: pytest.FixtureRequest) -> None:
    if IS_STAND_IN and request.node.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        request.getfixturevalue("stand_in")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A device "cuda" that computes on the CPU; `stand_in.no_reads()` makes reads by the host an error."""
    with stand_in_device(monkeypatch) as device:
        yield device


@pytest.fixture
def small_shards(tmp_path: Path) -> Callable[..., Path]:
    """small_shards(images=12, clips=0, per_shard=5, split="train", suffix="jpg", num_frames=6) -> folder.

    Keys: train0000, train0001, ... and trainclip0000, ...; images around 56 x 48 px, label = index modulo 3.
    """

    def make(
        images: int = 12,
        clips: int = 0,
        *,
        per_shard: int = 5,
        split: str = "train",
        suffix: str = "jpg",
        num_frames: int = 6,
        name: str = "shards",
    ) -> Path:
        samples = stored_images(images, suffix=suffix, split=split)
        samples += stored_clips(clips, num_frames=num_frames, split=split)
        return write_folder(tmp_path / name, samples, per_shard=per_shard, split=split)

    return make


@pytest.fixture
def shared_data() -> Path:
    """Folder of real photos and videos beside the repository; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real data beside the repository")
    return SHARED_DATA
