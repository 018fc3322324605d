from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.evaluations.depth.evaluation import DepthConfig, open_depth
from benchmarks.evaluations.depth.pair import DepthSplit, Pair
from benchmarks.evaluations.depth.pairs import check_depths
from pipelines.base.errors import FourfoldError
from tests.made.depth_data import room, write_nyu, write_rooms


def test_folder_of_16_bit_images(tmp_path: Path) -> None:
    train, test = open_depth(DepthConfig(data=write_rooms(tmp_path / "rooms")))
    assert (train.names, test.names) == (tuple(f"room{i}" for i in range(6)), tuple(f"room{i}" for i in range(6, 9)))
    pair, (rgb, depth) = test.read(1), room(7)
    np.testing.assert_array_equal(pair.rgb_HW3, rgb)
    depth[:8, :9] = 0  # written as 0 and as 65535
    np.testing.assert_allclose(pair.depth_HW, depth, atol=6e-4)
    assert pair.depth_HW.dtype == np.float32


def test_folders_train_and_test(tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("test", 2)):
        folder = write_rooms(tmp_path / "rooms" / split, num_train=seed, num_test=0)
        (folder / "train.txt").unlink()
    train, test = open_depth(DepthConfig(data=tmp_path / "rooms"))
    assert (len(train.names), len(test.names)) == (1, 2)


def test_index_one_folder_up_names_the_pairs_of_this_set(tmp_path: Path) -> None:
    folder = write_rooms(tmp_path / "rooms")
    for name in ("train.txt", "test.txt"):
        (folder / name).unlink()
    rows = ["set,name,split", "rooms,room3,train", "others,room4,train", "rooms,room5,test"]
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    assert [split.names for split in open_depth(DepthConfig(data=folder))] == [("room3",), ("room5",)]


def test_nyu_files_are_transposed_and_numbered_from_one(tmp_path: Path) -> None:
    train, test = open_depth(DepthConfig(data=write_nyu(tmp_path / "nyu")))
    assert train.names == ("pair 1", "pair 3", "pair 5")
    assert test.names == ("pair 2", "pair 4")
    rgb, depth = room(3)
    np.testing.assert_array_equal(test.read(1).rgb_HW3, rgb)
    np.testing.assert_array_equal(test.read(1).depth_HW, depth)


def unlink(name: str) -> object:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (write_nyu, unlink("splits.mat"), ["has no splits.mat", "Download http"]),
        (write_nyu, unlink("nyu_depth_v2_labeled.mat"), ["has no nyu_depth_v2_labeled.mat", "2.8 GB"]),
        (write_nyu, lambda folder: (folder / "splits.mat").write_bytes(b"x" * 200), ["splits.mat", "trainNdxs"]),
        (write_rooms, unlink("train.txt"), ["which pairs are split train", "train.txt"]),
        (write_rooms, unlink("depth/room1.png"), ["1 names of split train", "room1"]),
        (write_rooms, lambda folder: (folder / "test.txt").write_text(""), ["split test has no pairs"]),
        (write_rooms, lambda folder: (folder / "rgb").rename(folder / "RGB"), ["no folder rgb", "16 bits"]),
    ],
)
def test_wrong_layouts_are_one_message(tmp_path: Path, make: object, spoil: object, words: list[str]) -> None:
    folder = make(tmp_path / "data")
    spoil(folder)
    with pytest.raises(FourfoldError) as raised:
        open_depth(DepthConfig(data=folder))
    assert [word for word in words if word not in str(raised.value)] == []


def test_depth_of_8_bits_is_refused(tmp_path: Path) -> None:
    folder = write_rooms(tmp_path / "rooms")
    cv2.imwrite(str(folder / "depth" / "room2.png"), np.ones((48, 64), dtype=np.uint8))
    train, _ = open_depth(DepthConfig(data=folder))
    with pytest.raises(FourfoldError, match=r"room2\.png: uint8 .* one channel of 16 bits"):
        check_depths(train, "train")


def split_of(*depths: np.ndarray) -> DepthSplit:
    def read(index: int) -> Pair:
        return Pair(rgb_HW3=np.zeros((2, 3, 3), np.uint8), depth_HW=depths[index].astype(np.float32))

    return DepthSplit(names=tuple("abcdefgh"[: len(depths)]), read=read)


def test_unfit_depths_are_named_together() -> None:
    good = np.ones((2, 3))
    infinite, negative = good.copy(), good.copy()
    infinite[0, 0], negative[1, 1] = np.inf, -1
    split = split_of(good, infinite, negative, np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones((3, 2)))
    with pytest.raises(FourfoldError) as raised:
        check_depths(split, "train")
    message = str(raised.value)
    assert "5 of 6 pairs of split train" in message
    for part in (
        "b (infinite depth)",
        "c (negative depth)",
        "d (no known depth)",
        "e (no known depth)",
        "f (rgb (2, 3)",
    ):
        assert part in message


def test_statistics_leave_unknown_pixels_out() -> None:
    depth = np.array([[1.0, 3, 0], [np.nan, 5, 7]])
    statistics = check_depths(split_of(depth, 2 * np.ones((2, 3))), "train")
    known = np.array([1, 3, 5, 7] + [2] * 6)
    assert (statistics.mean_m, statistics.deviation_m) == pytest.approx((known.mean(), known.std()))
    assert statistics.unknown_ratio == pytest.approx(2 / 12)
