"""Source files in, samples or rejects out, in the order of the files, with the work spread over a thread pool.

Every result comes with the position after it, so that a build can go on from there.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

from pipelines.shards.clips import ClipFormat, RawClip, encode_clip, read_clips
from pipelines.shards.images import UnusableError, check_image
from pipelines.shards.sources import SourceFile

__all__ = ["Position", "Reject", "Sample", "SampleReader", "reject_to_json"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Position(NamedTuple):
    """The next thing to read: a file, and in a video the clip."""

    file_index: int
    clip_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A source file left out (or, in a video that breaks, its rest), and why."""

    key: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What goes into a tar. `members`: (extension, bytes), the jpg, png, webp or mp4 first."""

    key: str
    members: tuple[tuple[str, bytes], ...]
    width: int
    height: int
    label: int = -1
    num_frames: int = 1
    fps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReader:
    """Reads files of one kind. `labels`: class names, whose index is stored. `depth`: results held in memory."""

    files: Sequence[SourceFile]
    labels: tuple[str, ...]
    clip_format: ClipFormat
    max_pixels: int
    pool: ThreadPoolExecutor
    depth: int

    def read(self, start: Position) -> Iterator[tuple[Position, Sample | Reject]]:
        """Results from `start` on, each with the position after it."""
        if self.files and self.files[0].kind == "image":
            indices = range(start.file_index, len(self.files))
            return _in_order(self.pool, self._read_image, indices, self.depth)
        return _in_order(self.pool, self._encode, self._raw_clips(start), self.depth)

    def _read_image(self, index: int) -> tuple[Position, Sample | Reject]:
        file, after = self.files[index], Position(index + 1)
        try:
            encoded = file.path.read_bytes()
            info = check_image(encoded, self.max_pixels)
        except UnusableError as error:
            return after, _reject(file, str(error))
        except OSError as error:
            return after, _reject(file, f"cannot read it ({error.strerror})")
        label = -1 if file.label is None else self.labels.index(file.label)
        members = [(info.extension, encoded)]
        members += [("cls", str(label).encode())] if label >= 0 else []
        facts: dict[str, Any] = {"width": info.width, "height": info.height, "source": file.source}
        members.append(("json", _json_bytes(facts | ({"label": file.label} if file.label is not None else {}))))
        return after, Sample(key=file.key, members=tuple(members), width=info.width, height=info.height, label=label)

    def _raw_clips(self, start: Position) -> Iterator[tuple[Position, SourceFile, RawClip | str]]:
        """Decoded clips of all videos; a str in place of a clip is the reason to reject the file (or its rest)."""
        for index in range(start.file_index, len(self.files)):
            file = self.files[index]
            first_clip = start.clip_index if index == start.file_index else 0
            num_clips = first_clip
            try:
                for raw in read_clips(file.path, self.clip_format, first_clip=first_clip):
                    num_clips = raw.index + 1
                    yield Position(index, num_clips), file, raw
                if num_clips == 0:
                    yield Position(index + 1), file, self._too_short()
            except UnusableError as error:
                rest = f"; the {num_clips} clips before it are kept" if num_clips else ""
                yield Position(index + 1), file, f"{error}{rest}"

    def _too_short(self) -> str:
        form = self.clip_format
        need_s = (form.num_frames - 1) / form.fps
        return f"no clip of {form.num_frames} different frames at {form.fps:g} fps in it (needs {need_s:.2g} s)"

    def _encode(self, item: tuple[Position, SourceFile, RawClip | str]) -> tuple[Position, Sample | Reject]:
        after, file, raw = item
        if isinstance(raw, str):
            return after, _reject(file, raw)
        form, frame = self.clip_format, raw.frames[0]
        facts: dict[str, Any] = {
            "num_frames": form.num_frames,
            "fps": form.fps,
            "width": frame.width,
            "height": frame.height,
        }
        facts |= {"codec": form.codec, "source": file.source, "start_s": round(raw.start_s, 6)}
        return after, Sample(
            key=f"{file.key}_c{raw.index:06d}",
            members=(("mp4", encode_clip(raw.frames, form)), ("json", _json_bytes(facts))),
            width=frame.width,
            height=frame.height,
            num_frames=form.num_frames,
            fps=form.fps,
        )


def _reject(file: SourceFile, reason: str) -> Reject:
    return Reject(key=file.key, source=file.source, reason=reason)


def _json_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
    """`work` on a pool, at most `depth` items ahead of the reader, results in the order of the items."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def reject_to_json(reject: Reject) -> bytes:
    """A line of `rejects.jsonl`, without its end."""
    return _json_bytes(asdict(reject))
