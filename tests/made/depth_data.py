"""Hand-made depth data: rooms whose brightness is their distance, as folders of PNG files or in NYUv2's two files."""

from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy import io


def room(seed: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB and float32 meters: a slanted wall with a box in front; nearer is brighter."""
    rng = np.random.default_rng(seed)
    depth = np.tile(np.linspace(1, 3, width, dtype=np.float32) + rng.uniform(0, 1), (height, 1))
    top, left = rng.integers(4, height - 20), rng.integers(4, width - 20)
    depth[top : top + 16, left : left + 16] = rng.uniform(0.6, 1.0)
    gray = np.clip(255 - 55 * depth, 0, 255)
    rgb = gray[..., None] + rng.normal(0, 4, (height, width, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8), depth.astype(np.float32)


def write_rooms(folder: Path, num_train: int = 6, num_test: int = 3) -> Path:
    """rgb/NAME.png, depth/NAME.png in millimeters, train.txt and test.txt. Some depth is unknown."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    names = [f"room{index}" for index in range(num_train + num_test)]
    for index, name in enumerate(names):
        rgb, depth = room(index)
        stored = np.round(depth * 1000).astype(np.uint16)
        stored[:4, :9], stored[4:8, :9] = 0, 65535
        cv2.imwrite(str(folder / "rgb" / f"{name}.png"), rgb[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{name}.png"), stored)
    (folder / "train.txt").write_text("\n".join(names[:num_train]) + "\n")
    (folder / "test.txt").write_text("\n".join(names[num_train:]) + "\n")
    return folder


def write_nyu(folder: Path, num_pairs: int = 5, test_numbers: tuple[int, ...] = (2, 4)) -> Path:
    """Both files of NYUv2, with columns first and numbers from 1, as Matlab writes them."""
    folder.mkdir(parents=True)
    pairs = [room(index) for index in range(num_pairs)]
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([rgb.transpose(2, 1, 0) for rgb, _ in pairs])
        file["depths"] = np.stack([depth.T for _, depth in pairs])
    train = [number for number in range(1, num_pairs + 1) if number not in test_numbers]
    numbers = {"trainNdxs": np.array(train)[:, None], "testNdxs": np.array(test_numbers)[:, None]}
    io.savemat(str(folder / "splits.mat"), numbers)
    return folder
