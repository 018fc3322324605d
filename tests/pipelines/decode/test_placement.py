"""Placement: where images and clips are made, for machines that are not here."""

import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.decode.placement import PlacementConfig
from pipelines.pipeline_config import PipelineConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def inventory(monkeypatch: pytest.MonkeyPatch):
    """A machine with a number of cores, with or without DALI."""

    def no_dali() -> None:
        raise UsageError("DALI cannot be loaded")

    def set_to(cores: int, *, has_dali: bool = True) -> None:
        monkeypatch.setattr("pipelines.decode.placement.num_cores", lambda: cores)
        monkeypatch.setattr("pipelines.decode.dali.require_dali", (lambda: None) if has_dali else no_dali)

    return set_to


def placed(kind: str, device: torch.device, **options) -> tuple[str, str, int]:
    found = PipelineConfig(**options).placement_of(kind, device)
    return found.backend.name, found.device.type, found.num_workers


@pytest.mark.parametrize(
    ("cores", "has_dali", "image", "clip"),
    [
        (16, True, ("dali", "cuda", 0), ("opencv", "cpu", 14)),
        (16, False, ("opencv", "cuda", 0), ("opencv", "cpu", 14)),
        (64, True, ("dali", "cuda", 0), ("opencv", "cpu", 16)),
        (4, True, ("dali", "cuda", 0), ("opencv", "cpu", 2)),
        (2, True, ("dali", "cuda", 0), ("dali", "cuda", 0)),
    ],
)
def test_auto_beside_a_gpu_goes_by_what_the_machine_has(inventory, cores, has_dali, image, clip) -> None:
    inventory(cores, has_dali=has_dali)
    assert (placed("image", GPU), placed("clip", GPU)) == (image, clip)


@pytest.mark.parametrize("cores", [1, 64])
def test_auto_on_a_cpu_is_threads_of_opencv(inventory, cores) -> None:
    inventory(cores)
    assert placed("image", CPU) == placed("clip", CPU) == ("opencv", "cpu", 0)


def test_the_reason_is_told(inventory) -> None:
    inventory(16)
    assert str(PipelineConfig().placement_of("clip", GPU)) == (
        "opencv on cpu, 14 processes (16 cores beside a GPU, and processes make motion masks faster than threads)"
    )
    assert "DALI is installed" in str(PipelineConfig().placement_of("image", GPU))


def test_what_is_given_for_a_kind_goes_before_what_is_given_for_all(inventory) -> None:
    inventory(16)
    options = {"backend": "opencv", "num_workers": 3, "placement": {"images": {"backend": "dali", "num_workers": 0}}}
    assert placed("image", GPU, **options) == ("dali", "cuda", 0)
    assert placed("clip", GPU, **options) == ("opencv", "cpu", 3)
    here = {"placement": {"clips": {"device": "cpu"}}}
    assert placed("clip", GPU, **here) == ("opencv", "cpu", 0)
    there = {"placement": {"clips": {"device": "cuda"}}}
    assert placed("clip", GPU, **there) == ("dali", "cuda", 0)


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        (CPU, {"device": "cuda"}, r"placement\.clips\.device = cuda; the pipeline runs on cpu\. Use auto or cpu"),
        (GPU, {"device": "cuda", "num_workers": 4}, r"cuda with 4 worker processes, which have no GPU"),
    ],
)
def test_what_does_not_fit_together_is_an_error(inventory, device, options, message) -> None:
    inventory(16)
    with pytest.raises(UsageError, match=message):
        PipelineConfig(placement={"clips": options}).placement_of("clip", device)


def test_a_config_without_placement_is_written_as_before() -> None:
    assert "placement" not in PipelineConfig().model_dump()
    assert "placement" in PipelineConfig(placement={"clips": PlacementConfig(num_workers=1)}).model_dump()


def test_in_threads_there_is_no_worker_process_left(inventory) -> None:
    inventory(16)
    config = PipelineConfig(num_workers=2, placement={"clips": {"num_workers": 4, "backend": "dali"}}).in_threads()
    assert (placed("image", CPU), config.placement["clips"].backend) == (("opencv", "cpu", 0), "dali")
    assert [config.placement_of(kind, GPU).num_workers for kind in ("image", "clip")] == [0, 0]
