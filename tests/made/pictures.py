"""Hand-made pictures, clips and folders of shards for tests, written without the code under test."""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa

from pipelines.shards.format.manifest import SAMPLE_SCHEMA, Kind, ManifestWriter, Shard
from pipelines.shards.format.storage import storage_of

KINDS: tuple[Kind, ...] = ("image", "clip")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One sample to be put in a tar: the encoded file and what the manifest says of it."""

    key: str
    suffix: str
    encoded: bytes
    width: int
    height: int
    label: int = -1
    num_frames: int = 1
    fps: float = 0.0


def smooth_picture(seed: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB (height, width, 3) with the soft content of a photo: colored noise, blurred and stretched."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), max(width, height) / 16)
    low, high = soft.min(), soft.max()
    return ((soft - low) / (high - low) * 255).astype(np.uint8)


def encode(image: np.ndarray, suffix: str = "jpg", quality: int = 95) -> bytes:
    """A JPEG, PNG or WebP of an RGB image."""
    options = {"jpg": [cv2.IMWRITE_JPEG_QUALITY, quality], "webp": [cv2.IMWRITE_WEBP_QUALITY, quality]}.get(suffix, [])
    is_written, encoded = cv2.imencode(f".{suffix}", image[..., ::-1], options)
    assert is_written
    return encoded.tobytes()


def encode_clip(frames: Sequence[np.ndarray], codec: str = "mjpeg", fps: int = 10) -> bytes:
    """An mp4 of uint8 RGB frames, near lossless."""
    is_mjpeg = codec == "mjpeg"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"qmin": "1", "q:v": "1"} if is_mjpeg else {"crf": "10", "b": "0", "cpu-used": "8"}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if is_mjpeg else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def stored_images(count: int, *, suffix: str = "jpg", split: str = "train") -> list[Stored]:
    """`count` smooth pictures of varied sizes around 56 x 48; label = index modulo 3."""
    stored = []
    for index in range(count):
        width, height = 48 + 4 * (index % 5), 60 - 4 * (index % 4)
        encoded = encode(smooth_picture(index, width, height), suffix)
        key = f"{split}{index:04d}"
        stored.append(Stored(key=key, suffix=suffix, encoded=encoded, width=width, height=height, label=index % 3))
    return stored


def stored_clips(count: int, *, num_frames: int = 6, split: str = "train", codec: str = "mjpeg") -> list[Stored]:
    """`count` clips of 64 x 48 whose camera pans over a smooth picture."""
    stored = []
    for index in range(count):
        wide = smooth_picture(1000 + index, 64 + 4 * num_frames, 48)
        frames = [wide[:, 2 * frame : 2 * frame + 64] for frame in range(num_frames)]
        key = f"{split}clip{index:04d}"
        encoded = encode_clip(frames, codec)
        stored.append(
            Stored(key=key, suffix="mp4", encoded=encoded, width=64, height=48, num_frames=num_frames, fps=10.0)
        )
    return stored


def write_folder(folder: Path, samples: Sequence[Stored], *, per_shard: int = 5, split: str = "train") -> Path:
    """Tars of at most `per_shard` samples of one kind each, and their manifest."""
    return write_splits(folder, {split: samples}, per_shard=per_shard)


def write_splits(folder: Path, splits: Mapping[str, Sequence[Stored]], *, per_shard: int = 5) -> Path:
    """The same for several splits of one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with ManifestWriter(storage_of(folder), ("bird", "fish", "plant")) as manifest:
        for kind, (split, samples) in itertools.product(KINDS, splits.items()):
            chosen = [sample for sample in samples if (sample.suffix == "mp4") == (kind == "clip")]
            for index, first in enumerate(range(0, len(chosen), per_shard)):
                path = folder / f"{split}-{kind}s-{index:06d}.tar"
                manifest.add(*_write_tar(path, kind, split, chosen[first : first + per_shard]))
    return folder


def _write_tar(path: Path, kind: Kind, split: str, samples: Sequence[Stored]) -> tuple[Shard, pa.RecordBatch]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            member = tarfile.TarInfo(f"{sample.key}.{sample.suffix}")
            member.size = len(sample.encoded)
            tar.addfile(member, io.BytesIO(sample.encoded))
    with tarfile.open(path) as tar:
        offsets = [member.offset_data for member in tar.getmembers()]
    columns: dict[str, list[object]] = {
        "key": [sample.key for sample in samples],
        "offset": [*offsets],
        "size": [len(sample.encoded) for sample in samples],
    }
    for name in ("width", "height", "label", "num_frames", "fps"):
        columns[name] = [getattr(sample, name) for sample in samples]
    shard = Shard(
        name=path.name,
        kind=kind,
        split=split,
        num_samples=len(samples),
        shard_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return shard, pa.RecordBatch.from_pydict(columns, schema=SAMPLE_SCHEMA)
