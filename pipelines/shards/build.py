"""Files in, a folder of shards out: `{split}-{kind}s-{index:06d}.tar` with .idx, one manifest.json, rejects.jsonl.

A shard gets its name when it is whole, and a record under `.build/` says which files it was made of. A build that
was killed, or is run again, keeps every shard whose files and settings are the same, and makes the rest.
"""

import itertools
import json
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image
from pydantic import Field, field_validator

from pipelines.atomic import atomic_file, write_atomically
from pipelines.config import Config
from pipelines.errors import DataError, UsageError
from pipelines.machine import num_cores
from pipelines.progress import ProgressBar, progress_bar
from pipelines.shards.claim import claimed, sigterm_as_interrupt
from pipelines.shards.clips import ClipFormat, Codec
from pipelines.shards.images import MAX_PIXELS
from pipelines.shards.index import write_index
from pipelines.shards.manifest import MANIFEST_NAME, Kind, Manifest, Shard, save_manifest
from pipelines.shards.records import RECORD_FOLDER, ShardRecord, fingerprint, load_record, remove_stale, save_record
from pipelines.shards.samples import Position, Reject, Sample, SampleReader, reject_to_json
from pipelines.shards.sources import SourceFile, assign_splits, find_sources, key_hash
from pipelines.shards.writer import TarWriter

__all__ = ["REJECTS_NAME", "BuildConfig", "BuildSummary", "build_shards"]

REJECTS_NAME = "rejects.jsonl"
SETTINGS_NAME = f"{RECORD_FOLDER}/settings.json"
_Results = Iterator[tuple[Position, Sample | Reject]]
# Part of every record: raise it when the bytes of a shard change, and older shards are built again.
FORMAT_VERSION = 1
GROUPS: tuple[tuple[Kind, str], ...] = (("image", "train"), ("image", "val"), ("clip", "train"), ("clip", "val"))
RESUME_HINT = "Make room or mend it, then run the same build again: finished shards are kept."


class BuildConfig(Config):
    """What to pack, and how."""

    sources: list[Path] = Field(min_length=1)
    """Folders (searched whole), image files and video files."""
    out: Path
    """Folder of the shards; made if it is not there."""
    val: str = "none"
    """Validation split: "none"; "every:N", every N-th file of a class in name order, starting with the first;
    "hash:P", a share P (0 to 1) by hash of the key. A video is whole in one split."""
    labels: Literal["auto", "off"] = "auto"
    """"auto": folder names are class labels if all images of a source lie in class folders."""
    shuffle: bool = True
    """Order the files by the hash of their key, so that a shard mixes classes; else by name."""
    samples_per_shard: int = Field(default=1000, ge=1)
    """Most samples of a shard. Fewer makes more files; many more makes reading in parallel coarser."""
    max_shard_mib: float = Field(default=256.0, gt=0)
    """A shard ends with the sample that takes it to this size."""
    num_frames: int = Field(default=10, ge=1)
    """Frames of a clip."""
    fps: float = Field(default=10.0, gt=0, le=240)
    """Frames per second of a clip; the frame nearest in time is taken."""
    clip_short_side_px: int = Field(default=256, ge=16)
    """Short side of stored clips; smaller video is not enlarged. Bytes and decode time grow with its square."""
    codec: Codec = "mjpeg"
    """MJPEG decodes 1.6 times as fast as VP9 and takes twice the bytes (measured: see clips.py)."""
    max_repeat_ratio: float = Field(default=0.1, ge=0, le=1)
    """A clip is dropped if more than this share of its frames repeat the one before (video slower than fps)."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Larger images are rejected by their header, before they are decoded."""
    max_reject_ratio: float = Field(default=0.5, ge=0, le=1)
    """The build stops when more than this share of the files cannot be used."""
    overwrite: bool = False
    """Replace a finished build of other sources or settings in `out`."""
    num_threads: int = Field(default=0, ge=0)
    """Threads for checking and encoding; 0 is one per core. Each holds a few decoded clips."""

    @field_validator("val")
    @classmethod
    def _check_val(cls, value: str) -> str:
        name, _, number = value.partition(":")
        is_every = name == "every" and re.fullmatch(r"\d+", number) and int(number) >= 2
        is_hash = name == "hash" and re.fullmatch(r"0?\.\d+", number) and 0 < float(number) < 1
        if not (value == "none" or is_every or is_hash):
            raise ValueError('need "none", "every:N" with N of at least 2, or "hash:P" with P between 0 and 1')
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build made. `shards`: how many there are now, of which `num_reused` were there before."""

    num_images: int
    num_clips: int
    num_rejects: int
    num_ignored: int
    shards: int
    num_reused: int
    bytes: int
    seconds: float
    labels: tuple[str, ...]


def build_shards(config: BuildConfig) -> BuildSummary:
    """Pack all sources of a config into `config.out`; the same sources give the same bytes.

    Raises UsageError (nothing to pack, `out` holds another build or is in use) or DataError (too many rejects).
    Ctrl-C and SIGTERM leave finished shards, which the next build keeps, and nothing else.
    """
    start_s = time.monotonic()
    sources = find_sources(config.sources, labels=config.labels)
    files = assign_splits(sources.files, config.val)
    with claimed(config.out), sigterm_as_interrupt(), warnings.catch_warnings():
        _check_same_build(config)
        # Sizes are checked against max_pixels; Pillow's warning at half its limit would only be noise.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with progress_bar("building shards", total=len(files), unit="files") as bar:
            build = _Build(config=config, labels=sources.labels, num_files=len(files), bar=bar)
            try:
                for kind, split in GROUPS:
                    build.pack([f for f in files if (f.kind, f.split) == (kind, split)], kind, split)
                build.finish()
            except OSError as error:
                raise DataError(f"{error.filename or config.out}: {error.strerror}. {RESUME_HINT}") from error
    shards = build.shards
    return BuildSummary(
        num_images=sum(s.num_samples for s in shards if s.kind == "image"),
        num_clips=sum(s.num_samples for s in shards if s.kind == "clip"),
        num_rejects=len(build.rejects),
        num_ignored=sources.num_ignored,
        shards=len(shards),
        num_reused=build.num_reused,
        bytes=sum(s.shard_bytes for s in shards),
        seconds=time.monotonic() - start_s,
        labels=sources.labels,
    )


@dataclass(slots=True, kw_only=True)
class _Build:
    """The shards and the rejects so far."""

    config: BuildConfig
    labels: tuple[str, ...]
    num_files: int
    bar: ProgressBar
    shards: list[Shard] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    num_reused: int = 0

    def pack(self, files: Sequence[SourceFile], kind: Kind, split: str) -> None:
        """Make, or keep, all shards of one kind and split."""
        if self.config.shuffle:
            files = sorted(files, key=lambda file: (key_hash(file.key), file.key))
        num_threads = self.config.num_threads or num_cores()
        pool = ThreadPoolExecutor(num_threads)
        num_done_before = self.bar.num_done
        try:
            self._pack(_reader(self.config, self.labels, files, pool, num_threads), kind, split)
            self.bar.advance(num_done_before + len(files) - self.bar.num_done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _pack(self, reader: SampleReader, kind: Kind, split: str) -> None:
        settings = _shard_settings(self.config, self.labels, kind)
        position, results = Position(0), None
        for index in itertools.count():
            if position.file_index >= len(reader.files):
                return
            name = f"{split}-{kind}s-{index:06d}.tar"
            record = load_record(self.config.out, name, settings, reader.files, position)
            if record is not None:
                results = None
                self._keep(record, position)
            else:
                results = results or reader.read(position)
                record = self._write_shard(name, kind, split, results, position, len(reader.files))
                if record is None:
                    return
                mark = fingerprint(settings, reader.files, position, record.end)
                save_record(self.config.out, record, mark)
            self.shards.append(record.shard)
            position = record.end

    def _keep(self, record: ShardRecord, start: Position) -> None:
        self.num_reused += 1
        self.bar.advance(record.end.file_index - start.file_index)
        for reject in record.rejects:
            self._reject(reject)

    def _write_shard(
        self, name: str, kind: Kind, split: str, results: _Results, start: Position, num_files: int
    ) -> ShardRecord | None:
        """One shard from the next results; None if no sample is left."""
        num_rejects_before = len(self.rejects)
        samples = self._samples(results, start)
        first = next(samples, None)
        if first is None:
            return None
        path = self.config.out / name
        # From here on the old manifest would describe bytes that are gone.
        (self.config.out / MANIFEST_NAME).unlink(missing_ok=True)
        with atomic_file(path) as file:
            writer, end = TarWriter(file), Position(num_files)
            for after, sample in itertools.chain([first], samples):
                writer.add(sample)
                if self._is_full(writer):
                    end = after
                    break
            shard = writer.finish(name, kind, split)
        write_index(path)
        return ShardRecord(shard=shard, end=end, rejects=tuple(self.rejects[num_rejects_before:]))

    def _is_full(self, writer: TarWriter) -> bool:
        max_bytes = self.config.max_shard_mib * 2**20
        return writer.num_samples >= self.config.samples_per_shard or writer.num_bytes >= max_bytes

    def _samples(self, results: _Results, start: Position) -> Iterator[tuple[Position, Sample]]:
        """The good results; the others go to the rejects."""
        num_files_done = start.file_index
        for position, result in results:
            self.bar.advance(position.file_index - num_files_done)
            num_files_done = position.file_index
            if isinstance(result, Sample):
                yield position, result
            else:
                self._reject(result)

    def _reject(self, reject: Reject) -> None:
        self.rejects.append(reject)
        self.bar.show(rejects=len(self.rejects))
        max_ratio = self.config.max_reject_ratio
        if len(self.rejects) > max_ratio * self.num_files:
            raise self._too_many_rejects(f"more than max_reject_ratio = {max_ratio:g} of {self.num_files} files")

    def _too_many_rejects(self, what: str) -> DataError:
        path = self._write_rejects()
        shown = "; ".join(f"{reject.source}: {reject.reason}" for reject in self.rejects[:3])
        return DataError(
            f"{self.config.out}: {what} cannot be used ({shown}). All of them are in {path}. "
            "Mend or remove them, or raise max_reject_ratio."
        )

    def _write_rejects(self) -> Path:
        path = self.config.out / REJECTS_NAME
        if self.rejects:
            write_atomically(path, b"".join(reject_to_json(reject) + b"\n" for reject in self.rejects))
        else:
            path.unlink(missing_ok=True)
        return path

    def finish(self) -> None:
        """Publish the manifest, then clear away what earlier builds left."""
        if not self.shards:
            raise self._too_many_rejects(f"all {self.num_files} files")
        out = self.config.out
        self._write_rejects()
        write_atomically(out / SETTINGS_NAME, json.dumps(_build_settings(self.config), indent=1).encode())
        save_manifest(Manifest(folder=out, shards=tuple(self.shards), labels=self.labels))
        remove_stale(out, self.shards)


def _clip_format(config: BuildConfig) -> ClipFormat:
    return ClipFormat(
        num_frames=config.num_frames,
        fps=config.fps,
        short_side_px=config.clip_short_side_px,
        codec=config.codec,
        max_repeat_ratio=config.max_repeat_ratio,
    )


def _reader(
    config: BuildConfig,
    labels: tuple[str, ...],
    files: Sequence[SourceFile],
    pool: ThreadPoolExecutor,
    num_threads: int,
) -> SampleReader:
    return SampleReader(
        files=files,
        labels=labels,
        clip_format=_clip_format(config),
        max_pixels=config.max_pixels,
        pool=pool,
        depth=2 * num_threads + 2,
    )


def _shard_settings(config: BuildConfig, labels: tuple[str, ...], kind: Kind) -> dict[str, Any]:
    """All settings that a shard's bytes depend on."""
    limits = [config.samples_per_shard, config.max_shard_mib]
    common = {"format_version": FORMAT_VERSION, "limits": limits, "kind": kind}
    if kind == "image":
        return common | {"labels": labels, "max_pixels": config.max_pixels}
    return common | {"clips": asdict(_clip_format(config)), "libraries": av.library_versions}


def _build_settings(config: BuildConfig) -> dict[str, Any]:
    """All settings that make it another build."""
    settings = config.model_dump(mode="json", exclude={"out", "overwrite", "num_threads", "max_reject_ratio"})
    return settings | {"sources": [str(path.resolve()) for path in config.sources]}


def _check_same_build(config: BuildConfig) -> None:
    """Refuse to replace a finished build of other sources or settings, unless asked to."""
    if config.overwrite or not (config.out / MANIFEST_NAME).exists():
        return
    given = _build_settings(config)
    try:
        have = json.loads((config.out / SETTINGS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        have = {}
    different = [f"{name} = {given[name]} (there: {have.get(name)})" for name in given if given[name] != have.get(name)]
    if different:
        raise UsageError(
            f"{config.out}: holds a finished build of something else; {'; '.join(different)}. "
            "Give another folder, or say overwrite to replace it."
        )
