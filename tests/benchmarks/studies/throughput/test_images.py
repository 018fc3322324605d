"""The measuring script: its photos, backends and workers proved equal, a whole run of it in small."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.studies.throughput import images
from benchmarks.studies.throughput.images import ImagesOptions, check_backends, check_same_bits, config_of
from benchmarks.studies.throughput.made_shards import write_jpegs
from pipelines.base.errors import DataError, UsageError
from tests.made.pictures import smooth_picture

SMALL = ImagesOptions(num_images=32, num_samples=32, num_repeats=2, batch_size=16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images and shards of them."""
    folder = tmp_path_factory.mktemp("throughput")
    images.write_data(folder, SMALL)
    return folder / "images", folder / "shards"


def test_photos_have_one_size_and_come_again_with_other_crops(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index, size in enumerate([(900, 300), (200, 700)]):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), smooth_picture(index, *size))
    write_jpegs(tmp_path / "out", tmp_path / "in", 4)
    found = [np.asarray(cv2.imread(str(path))) for path in sorted((tmp_path / "out").iterdir())]
    assert [image.shape for image in found] == [(375, 500, 3)] * 4
    assert np.abs(found[0].astype(int) - found[2]).mean() > 1


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no"):
        write_jpegs(tmp_path / "out", tmp_path, 4)


def test_backends_that_differ_are_not_timed(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opencv = config_of(folders[1], "opencv", SMALL)
    assert check_backends(opencv, opencv) == dict.fromkeys(images.TASKS, 0.0)
    monkeypatch.setattr(images, "TOLERANCES", dict.fromkeys(images.TASKS, 0.01))
    with pytest.raises(DataError, match=r"\w+: inputs of backends .* at most 0\.01 is allowed"):
        check_backends(opencv, opencv.model_copy(update={"flip_probability": 0.0}))


def test_workers_that_make_something_else_are_not_timed(folders: tuple[Path, Path]) -> None:
    threads, workers = (config_of(folders[1], "opencv", SMALL, num_workers=count) for count in (0, 1))
    check_same_bits(threads, workers)
    with pytest.raises(DataError, match="worker processes make different batches"):
        check_same_bits(threads, workers.model_copy(update={"canvas_scale": (0.5, 0.6)}))


@pytest.mark.slow
def test_a_whole_run_in_small(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SETTLE_S", 0.0)
    pytest.importorskip("nvidia.dali")
    threads = torch.get_num_threads()
    results = images.measure_contenders(*folders, dataclasses.replace(SMALL, num_cores=1))
    torch.set_num_threads(threads)
    measured = results["samples_per_s"]
    ours = {"ours opencv", "ours opencv workers", "ours dali"}
    assert set(measured) == {"dali decode"} | ours
    assert all(len(one["repeats"]) == 2 and min(one["repeats"]) > 0 for one in measured.values())
    assert [row["what"] for row in results["ratios"]][:2] == [
        "ours opencv workers / dali decode",
        "ours opencv / dali decode",
    ]
