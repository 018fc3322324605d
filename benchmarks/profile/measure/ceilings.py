"""The limits of this machine that no pipeline can beat: reading these shards, copying memory, decoding this folder's
images and clips and nothing else, optical flow, copying to the device, multiplying matrices on it.

Measured once for a machine and a set of shards, and kept in the cache folder; a limit that cannot be measured here is
None, shown as "not measured".
"""

import hashlib
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from benchmarks.profile.measure.consumers import wait_for
from benchmarks.profile.measure.disk import DiskSpeed, Span, read_speed
from benchmarks.profile.measure.stage_hooks import sources_of
from benchmarks.results.record import environment, write_json
from pipelines.base.errors import DataError
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.run.sample_source import SampleSource
from pipelines.targets.motion.flow import DisFlow, LucasKanade

__all__ = ["Ceilings", "ceilings", "fingerprint_of", "measure_ceilings"]

FORMAT_VERSION = 1
NUM_SAMPLES = 64
ONE_S = 0.5
"""For each limit."""
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Per second. decode_*: whole images of this folder by OpenCV, without crop and resize. clip_*: whole clips by
    PyAV. flow_pairs: frame pairs of 320 x 240 on one core. None: not measured, for there is nothing to measure."""

    read: DiskSpeed | None
    memory_copy_bytes_per_s: float
    decode_images_per_s_core: float | None
    decode_images_per_s: float | None
    decode_clips_per_s_core: float | None
    decode_clips_per_s: float | None
    flow_pairs_per_s: dict[str, float]
    to_device_bytes_per_s: float | None
    to_device_pinned_bytes_per_s: float | None
    matrix_flop_per_s: float
    device: str


def ceilings(config: PipelineConfig, device: torch.device, folder: Path | None = None) -> tuple[Ceilings, bool]:
    """The limits, and whether they come from the cache. `folder`: of the cache."""
    path = (folder or _cache_folder()) / f"ceilings-{fingerprint_of(config, device)}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        read = DiskSpeed(**content["read"]) if content["read"] else None
        return Ceilings(**(content | {"read": read})), True
    except (OSError, ValueError, KeyError, TypeError):
        found = measure_ceilings(config, device)
        with suppress(DataError):  # where the cache cannot be written, the next profile takes some seconds more
            write_json(path, asdict(found))
        return found, False


def _cache_folder() -> Path:
    return Path(os.environ.get("FOURFOLD_CACHE") or Path.home() / ".cache" / "fourfold")


def fingerprint_of(config: PipelineConfig, device: torch.device) -> str:
    """Hash of the machine (processor, cores, kernel, GPU, packages that decode) and of the shards' content."""
    place = environment()
    with build_pipeline(config, seed=0, device=device) as pipeline:
        shards = [[shard.sha256 for shard in source.table.shards] for source in sources_of(pipeline).values()]
    versions = {name: place.versions.get(name) for name in ("torch", "opencv-python-headless")}
    parts = [FORMAT_VERSION, place.cpu_name, num_cores(), platform.release(), place.gpu_name, versions, av.__version__]
    return hashlib.sha256(json.dumps([*parts, str(device), shards]).encode()).hexdigest()[:16]


def measure_ceilings(config: PipelineConfig, device: torch.device) -> Ceilings:
    """Takes some seconds."""
    with build_pipeline(config, seed=0) as pipeline:
        sources = sources_of(pipeline)
        spans = {kind: _spans(source) for kind, source in sources.items()}
    paths = list(dict.fromkeys(path for found in spans.values() for path, _, _ in found))
    is_local = all(path.exists() for path in paths)
    images, clips = (_contents(spans.get(kind, [])) if is_local else [] for kind in ("image", "clip"))
    decoders = (("image", _decode_image, images), ("clip", _decode_clip, clips))
    one_core = {name: per_second(work, items, 1) for name, work, items in decoders if items}
    all_cores = {name: per_second(work, items, num_cores()) for name, work, items in decoders if items}
    copies = _device_copies(device)
    return Ceilings(
        read=read_speed(paths, [one for found in spans.values() for one in found]) if is_local else None,
        memory_copy_bytes_per_s=_memory_copy(),
        decode_images_per_s_core=one_core.get("image"),
        decode_images_per_s=all_cores.get("image"),
        decode_clips_per_s_core=one_core.get("clip"),
        decode_clips_per_s=all_cores.get("clip"),
        flow_pairs_per_s=_flow(clips) if clips else {},
        to_device_bytes_per_s=copies.get("pageable"),
        to_device_pinned_bytes_per_s=copies.get("pinned"),
        matrix_flop_per_s=_matrix(device),
        device=str(device),
    )


def _spans(source: SampleSource) -> list[Span]:
    """Where the first samples of the plan are."""
    table, paths, found = source.table, source.reader.paths, []
    rows = np.concatenate([source.plan.picks(batch).rows for batch in range(1 + 512 // source.plan.local_batch_size)])
    for row in dict.fromkeys(rows.tolist()):
        found.append((paths[int(table.shard_index[row])], int(table.offset[row]), int(table.size[row])))
    return found


def _contents(spans: Sequence[Span]) -> list[bytes]:
    contents = []
    for path, offset, size in spans[:NUM_SAMPLES]:
        with path.open("rb") as file:
            file.seek(offset)
            contents.append(file.read(size))
    return contents


def per_second(work: Callable[[Any], object], items: Sequence[Any], num_threads: int) -> float:
    """Items per second of wall time, the best of some turns: what others take of the machine only makes it less."""
    cv2.setNumThreads(1)
    best, end_s = 0.0, time.perf_counter() + ONE_S
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, items))
        while not best or time.perf_counter() < end_s:
            start_s = time.perf_counter()
            list(pool.map(work, items))
            best = max(best, len(items) / (time.perf_counter() - start_s))
    return best


def _decode_image(content: bytes) -> object:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _decode_clip(content: bytes) -> int:
    with av.open(io.BytesIO(content), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return sum(1 for _ in container.decode(stream))


def _memory_copy() -> float:
    """Of one thread; read and written bytes are counted once."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return COPY_BYTES / min(_seconds(lambda: np.copyto(target, source)) for _ in range(5))


def _flow(clips: Sequence[bytes]) -> dict[str, float]:
    with av.open(io.BytesIO(clips[0]), mode="r") as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][:4]
    gray_THW = np.stack([cv2.resize(frame, (320, 240)) for frame in frames])
    y, x = np.mgrid[4:240:8, 4:320:8]
    points_N2 = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    engines = {"lucas_kanade": LucasKanade(), "dis fast": DisFlow("fast")}
    pairs = len(gray_THW) - 1
    return {
        name: pairs / min(_seconds(lambda engine=engine: engine.tracks(gray_THW, points_N2)) for _ in range(5))  # type: ignore[misc]
        for name, engine in engines.items()
    }


def _device_copies(device: torch.device) -> dict[str, float]:
    """Bytes per second from ordinary and from page-locked memory; {} where the device is the CPU."""
    if device.type != "cuda":
        return {}
    pageable = torch.ones(COPY_BYTES, dtype=torch.uint8)
    found = {}
    for name, tensor in (("pageable", pageable), ("pinned", pageable.pin_memory())):

        def copy(tensor: torch.Tensor = tensor) -> None:
            tensor.to(device, non_blocking=True)
            wait_for(device)

        copy()
        found[name] = COPY_BYTES / statistics.median(_seconds(copy) for _ in range(9))
    return found


def _matrix(device: torch.device) -> float:
    """FLOP/s of a product of square matrices: bf16 on a GPU, fp32 with torch's threads on a CPU."""
    size = MATRIX_SIZE["cuda" if device.type == "cuda" else "cpu"]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        torch.mm(matrix, matrix)
        wait_for(device)

    multiply()
    return 2 * size**3 / min(_seconds(multiply) for _ in range(7))


def _seconds(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s
