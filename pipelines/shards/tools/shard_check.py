"""Check of one shard against its manifest: size, sha256, tar structure, index, rows, and on request every pixel.

Nothing is extracted and no size is believed: members are found by their headers, in constant memory per member.
"""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import pyarrow as pa

from pipelines.base.errors import FourfoldError
from pipelines.shards.format.index import Member, index_name, parse_index
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.format.manifest import Kind, Shard
from pipelines.shards.format.shard_place import ADOPT_AGAIN
from pipelines.shards.format.storage import Storage
from pipelines.shards.format.table import Elsewhere
from pipelines.shards.format.tar_members import BLOCK_BYTES, DamagedTarError, tar_members
from pipelines.shards.media.image_bytes import MAX_PIXELS, ImageForm, prepare_image

__all__ = [
    "CHUNK_BYTES",
    "SAMPLE_EXTENSIONS",
    "check_shard",
    "decode_problem",
    "on_this_machine",
    "open_adopted",
    "read_groups",
    "sha256_of",
]

SAMPLE_EXTENSIONS = {"image": frozenset({"jpg", "png", "webp"}), "clip": frozenset({"mp4"})}
IMAGE_FORM = ImageForm(check="decode", max_pixels=MAX_PIXELS)
MAX_LABEL_BYTES = 20
CHUNK_BYTES = 2**22


def check_shard(storage: Storage, shard: Shard, samples: pa.RecordBatch, *, decode: bool) -> list[str]:
    """Return a line per problem, the shard's name first; raises nothing that a damaged shard or disk can cause."""
    find = _problems if shard.elsewhere is None else _adopted_problems
    try:
        return [f"{shard.name}: {problem}" for problem in find(storage, shard, samples, decode)]
    except FileNotFoundError:
        if shard.elsewhere is not None:
            return [f"{shard.name}: nothing at {shard.elsewhere.location}; {ADOPT_AGAIN}"]
        return [f"{shard.name}: missing; copy it here again, or run the build again"]
    except (OSError, FourfoldError) as error:
        return [f"{shard.name}: cannot read it ({error})"]


def _problems(storage: Storage, shard: Shard, samples: pa.RecordBatch, decode: bool) -> Iterator[str]:
    with on_this_machine(storage, shard.name) as file:
        num_bytes = file.seek(0, io.SEEK_END)
        # Cheap checks first, and each stops the rest: nothing is to be learnt from the rows of other bytes.
        if num_bytes != shard.shard_bytes:
            yield f"{num_bytes} bytes, the manifest says {shard.shard_bytes}; it was cut off or changed"
            return
        if sha256_of(file) != shard.sha256:
            yield "sha256 differs from the manifest; its bytes were changed or damaged"
            return
        try:
            groups = read_groups(file)
        except DamagedTarError as error:
            yield f"not a plain tar ({error}), although its sha256 is right; build it again"
            return
        yield from _index_problems(storage, index_name(shard.name), groups)
        found = list(_row_problems(file, shard.kind, samples, groups))
        yield from _shortened(found)
        # Pixels are not looked at where places are wrong: they would be those of other samples.
        if decode and not found:
            yield from _shortened(_decode_problems(file, shard.kind, samples))


def _adopted_problems(storage: Storage, shard: Shard, samples: pa.RecordBatch, decode: bool) -> Iterator[str]:
    """Compare an adopted tar with its rows and its sha256. Its structure is that of others, and not checked."""
    assert shard.elsewhere is not None
    with open_adopted(storage, shard.elsewhere) as file:
        num_bytes = file.seek(0, io.SEEK_END)
        if num_bytes != shard.shard_bytes:
            yield f"{num_bytes} bytes, {shard.shard_bytes} when it was adopted. {ADOPT_AGAIN}"
            return
        # A trusted tar was never read whole: its time is all that there is to compare.
        is_local = not is_remote(shard.elsewhere.location)
        if is_local and os.fstat(file.fileno()).st_mtime_ns != shard.elsewhere.modified_ns:
            yield f"it was changed or replaced after it was adopted (its time differs). {ADOPT_AGAIN}"
        if not shard.elsewhere.is_trusted and sha256_of(file) != shard.sha256:
            yield f"its bytes are not those that were adopted (sha256). {ADOPT_AGAIN}"
            return
        if storage.size(index_name(shard.name)) is None:
            yield f"its index {index_name(shard.name)} is missing. {ADOPT_AGAIN}"
        found = list(_place_problems(file, samples))
        yield from _shortened(found)
        if decode and not found:
            yield from _shortened(_decode_problems(file, shard.kind, samples))


def _place_problems(file: BinaryIO, samples: pa.RecordBatch) -> Iterator[str]:
    try:
        places = {(member.offset, member.size) for member in tar_members(file) if member.kind == "file"}
    except DamagedTarError as error:
        # What is behind the damage was not adopted, and the members before it are still at their places.
        yield from () if samples.num_rows else [f"damaged tar ({error})"]
        return
    columns = (samples.column(name).to_pylist() for name in ("key", "offset", "size"))
    for key, offset, size in zip(*columns, strict=True):
        if (offset, size) not in places:
            yield f"sample {key} is not where the manifest says"


@contextmanager
def open_adopted(storage: Storage, elsewhere: Elsewhere) -> Iterator[BinaryIO]:
    """Open an adopted tar to read at random, wherever it lies. Raises OSError."""
    if not is_remote(elsewhere.location) and os.path.isabs(elsewhere.location):
        with open(elsewhere.location, "rb") as file:
            yield file
        return
    source = open_binary(elsewhere.location) if is_remote(elsewhere.location) else storage.open(elsewhere.location)
    with source, _at_random(source, is_remote(elsewhere.location) or storage.path(".") is None) as file:
        yield file


@contextmanager
def on_this_machine(storage: Storage, name: str) -> Iterator[BinaryIO]:
    """Open a tar to read at random; a remote one is copied to a file without a name: each header is a request."""
    with storage.open(name) as source, _at_random(source, storage.path(name) is None) as file:
        yield file


@contextmanager
def _at_random(file: BinaryIO, is_far: bool) -> Iterator[BinaryIO]:
    if not is_far:
        yield file
    else:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy, CHUNK_BYTES)
            yield copy


def sha256_of(file: BinaryIO) -> str:
    """Hash the whole file, wherever its position is."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def read_groups(file: BinaryIO) -> list[tuple[str, list[Member]]]:
    """Return key and members of every sample, in order, as WebDataset groups them. Raises DamagedTarError."""
    groups: list[tuple[str, list[Member]]] = []
    end = 0
    for name, kind, offset, size in tar_members(file):
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if kind != "file" or not (stem and dot):
            raise DamagedTarError(f"member {name!r} is a {kind}; need files named KEY.EXTENSION")
        key = folder + slash + stem
        if not groups or groups[-1][0] != key:
            groups.append((key, []))
        groups[-1][1].append((extension, offset, size, name))
        end = offset - (-size // BLOCK_BYTES) * BLOCK_BYTES
    _check_end(file, end)
    return groups


def _check_end(file: BinaryIO, end: int) -> None:
    # Readers stop at the end mark: what came behind it would be hashed and copied, and never seen.
    file.seek(end)
    num_zeros = 0
    while chunk := file.read(CHUNK_BYTES):
        if chunk.count(0) != len(chunk):
            raise DamagedTarError(f"something else than zeros after its end at byte {end}")
        num_zeros += len(chunk)
    if num_zeros < 2 * BLOCK_BYTES:
        raise DamagedTarError(f"{num_zeros} bytes of zeros at its end; need at least {2 * BLOCK_BYTES}")


def _index_problems(storage: Storage, name: str, groups: Sequence[tuple[str, list[Member]]]) -> Iterator[str]:
    try:
        found = parse_index(storage.read(name))
    except FileNotFoundError:
        yield f"its index {name} is missing; run the build again"
        return
    except (OSError, ValueError) as error:
        yield f"{name} is not a readable DALI index ({error}); run the build again"
        return
    if found != [members for _, members in groups]:
        yield f"{name} does not fit the tar; run the build again"


def _row_problems(
    file: BinaryIO, kind: Kind, samples: pa.RecordBatch, groups: Sequence[tuple[str, list[Member]]]
) -> Iterator[str]:
    if len(groups) != samples.num_rows:
        yield f"{len(groups)} samples, the manifest says {samples.num_rows}"
        return
    columns = (samples.column(name).to_pylist() for name in ("key", "offset", "size", "label"))
    for key, offset, size, label, (found_key, members) in zip(*columns, groups, strict=True):
        pixels = [member for member in members if member[0] in SAMPLE_EXTENSIONS[kind]]
        if found_key != key or [member[1:3] for member in pixels] != [(offset, size)]:
            yield f"sample {key} is not where the manifest says"
        elif (found := _label(file, members)) != label:
            yield f"sample {key} has label {found} in its .cls, the manifest says {label}"


def _label(file: BinaryIO, members: Iterable[Member]) -> int | str:
    for extension, offset, size, _ in members:
        if extension == "cls":
            file.seek(offset)
            text = file.read(min(size, MAX_LABEL_BYTES))
            return int(text) if text.isdigit() else repr(text)
    return -1


def _decode_problems(file: BinaryIO, kind: Kind, samples: pa.RecordBatch) -> Iterator[str]:
    for row in samples.to_pylist():
        file.seek(row["offset"])
        reason = decode_problem(kind, file.read(row["size"]), row)
        if reason:
            yield f"sample {row['key']}: {reason}"


def decode_problem(kind: Kind, encoded: bytes, row: dict[str, Any]) -> str | None:
    """Return why an image or clip is not what its row says; None if all of it decodes to just that."""
    expected = (row["num_frames"], row["width"], row["height"])
    try:
        found = _image_facts(encoded) if kind == "image" else _clip_facts(encoded)
    except Exception as error:  # decoders of damaged bytes raise what they like
        return f"cannot be decoded ({error or type(error).__name__})"
    return None if found == expected else f"decodes to {_text(found)}, the manifest says {_text(expected)}"


def _image_facts(encoded: bytes) -> tuple[int, int, int]:
    image = prepare_image(encoded, IMAGE_FORM)
    return 1, image.width, image.height


def _clip_facts(encoded: bytes) -> tuple[int, int, int]:
    """Count the frames that decode; return that, width and height."""
    with av.open(io.BytesIO(encoded), "r") as container:
        stream = container.streams.video[0]
        # One process or thread per core is at work already.
        stream.codec_context.thread_count = 1
        sizes = [(frame.width, frame.height) for frame in container.decode(stream)]
    if len(set(sizes)) != 1:
        raise ValueError(f"{len(sizes)} frames of {len(set(sizes))} sizes")
    return len(sizes), *sizes[0]


def _text(facts: tuple[int, int, int]) -> str:
    num_frames, width, height = facts
    return f"{num_frames} frames of {width} x {height} px" if num_frames > 1 else f"{width} x {height} px"


def _shortened(problems: Iterable[str]) -> Iterator[str]:
    """Yield the first three in full, the rest as a number: a foreign manifest gives one for every sample."""
    num_more = 0
    for index, problem in enumerate(problems):
        if index < 3:
            yield problem
        else:
            num_more += 1
    if num_more:
        yield f"and {num_more} more samples like these"
