"""The study on a made folder in DAVIS's layout, and on real sequences where they are at hand."""

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.studies.motion.davis import STUDY, DavisOptions, davis_clips, measure
from pipelines.base.errors import UsageError
from tests.made.composites import MadeCameraPath, compose, cutout, photo

HEIGHT, WIDTH = 240, 428


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """14 frames of a square over a moving background, and its masks: that of 00003 is 200 instead of 255."""
    for index in range(14):
        frame = compose(
            photo(0, 400, 640),
            cutout(1),
            rng=np.random.default_rng(0),
            camera=MadeCameraPath(),
            object_height_px=90,
            object_start_xy=(150.0 + 4 * index, 120),
            height=HEIGHT,
            width=WIDTH,
            num_frames=1,
        )
        # Only a composite's first frame has a mask, so each frame is one of its own; the camera is a roll.
        folders = [tmp_path / part / "480p" / "square" for part in ("JPEGImages", "Annotations")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        shifted, mask = np.roll(frame.clip[0], index, axis=1), np.roll(frame.coverage > 0.5, index, axis=1)
        cv2.imwrite(str(folders[0] / f"{index:05}.jpg"), shifted[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(folders[1] / f"{index:05}.png"), np.uint8(mask * (200 if index == 3 else 255)))
    return tmp_path


def test_clips_are_spread_and_have_the_truth_of_their_first_frame(made: Path) -> None:
    clips = list(davis_clips(DavisOptions(folder=made, num_clips=2), 1))
    assert [clip.sequence for clip in clips] == ["square", "square"]
    for clip, first in zip(clips, (0, 4), strict=True):
        assert clip.frames.shape == (3, 240, 320, 3)
        mask = cv2.imread(str(made / f"Annotations/480p/square/{first:05}.png"), cv2.IMREAD_GRAYSCALE) > 0
        resized = cv2.resize(mask.astype(np.float32), (320, 240), interpolation=cv2.INTER_AREA)
        expected = resized.reshape(30, 8, 40, 8).mean(axis=(1, 3)) >= 0.5
        np.testing.assert_array_equal(clip.truth, expected)


def test_the_record_has_every_way_rate_and_sequence(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "davis.json"
    STUDY.main(["--folder", str(made), "--strides", "1", "--strides", "4", "--clips", "2", "--out", str(out)])
    rows = json.loads(out.read_text())["results"]["rows"]
    assert {row["fps"] for row in rows} == {24.0, 6.0}
    ours = next(row for row in rows if row["way"] == "fourfold, dis" and row["fps"] == 24.0)
    assert ours["mean_iou"] >= 0.7
    assert ours["by_sequence"]["square"]["mean_iou"] == pytest.approx(ours["mean_iou"])
    assert len({row["way"] for row in rows}) == 4


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(UsageError, match="holds no folder Annotations"):
        DavisOptions(folder=tmp_path)


def test_a_sequence_that_is_not_there_is_named(made: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.jpg"):
        list(davis_clips(DavisOptions(folder=made, sequences=("cows",)), 1))


def test_real_sequences(shared_data: Path, tmp_path: Path) -> None:
    """Two of six: the floor is far below what the record says (0.80 and 0.71), as these are few clips."""
    names = ("blackswan", "cows")
    with tarfile.open(shared_data / "davis_dev.tar") as tar:
        wanted = [one for one in tar if one.isfile() and Path(one.name).parent.name in names]
        for one in wanted:
            tar.extract(one, tmp_path, filter="data")
    found = measure(DavisOptions(folder=tmp_path / "davis_dev", strides=(1,), num_clips=2, sequences=names))["rows"]
    ours = next(row for row in found if row["way"] == "fourfold, dis")
    assert ours["mean_iou"] >= 0.6
    assert ours["known_ratio"] >= 0.8
    assert ours["left_out_ratio"] == 0
