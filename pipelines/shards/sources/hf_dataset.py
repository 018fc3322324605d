"""Datasets that Hugging Face `datasets` saved on disk (save_to_disk) to source items, one per row.

The first column of type Image (or else Video) is packed as it is stored, never decoded here; a ClassLabel column
gives the label by its name. Each split of a DatasetDict stays a split. An item's location is "FOLDER#COLUMN".
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.table import Kind
from pipelines.shards.sources.items import (
    Found,
    Note,
    Reject,
    SourceItem,
    UnusableError,
    kind_of,
    local_item,
    printable,
    safe_key,
)
from pipelines.shards.sources.labels import (
    LABEL_COLUMNS,
    class_name,
    find_column,
    label_text,
    no_label_text,
    split_name,
)
from pipelines.shards.sources.list_rows import ListColumns

__all__ = ["Rows", "dataset_items", "is_dataset", "open_rows"]

BATCH_ROWS = 10_000
KINDS: dict[str, Kind] = {"Image": "image", "Video": "clip"}


class _Source(NamedTuple):
    """One saved dataset. `name`: shown to people; `split`: None where the folder says nothing of it."""

    folder: Path
    name: str
    split: str | None
    column: str
    kind: Kind
    modified_ns: int


def is_dataset(folder: Path) -> bool:
    """Return whether save_to_disk wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def dataset_items(folder: Path, columns: ListColumns, *, with_labels: bool) -> Iterator[Found]:
    """Yield an item or reject for each row, split by split.

    Raises UsageError (no image column, no such column, a split whose name no shard can have) or DataError (damaged).
    """
    folder = folder.absolute()
    for path, saved_name, split in _splits(folder):
        dataset = _load(path)
        column = _media_column(dataset, columns.path, path)
        name = printable(folder.name if saved_name is None else f"{folder.name}/{saved_name}")
        source = _Source(
            folder=path,
            name=name,
            split=split,
            column=column,
            kind=KINDS[_type_name(dataset, column)],
            modified_ns=(path / "state.json").stat().st_mtime_ns,
        )
        yield from _rows(dataset, source, columns, with_labels=with_labels)


def _splits(folder: Path) -> list[tuple[Path, str | None, str | None]]:
    """Return folder, saved name and our name of each split; names are None for a dataset without splits."""
    try:
        names = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        paths = [folder / name for name in names]
    except FileNotFoundError:
        return [(folder, None, None)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: damaged dataset_dict.json ({error}). Save the dataset again.") from error
    try:
        splits = [split_name(name) for name in names]
    except ValueError as error:
        raise UsageError(f"{folder}: {error}. Rename this split, and save the dataset again.") from error
    twice = [split for split, count in Counter(splits).items() if count > 1]
    if twice:
        same = ", ".join(name for name, split in zip(names, splits, strict=True) if split == twice[0])
        raise UsageError(f"{folder}: its splits {same} would all be {twice[0]}. Rename them, and save it again.")
    return list(zip(paths, names, splits, strict=True))


def _load(folder: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"{folder}: reading it needs Hugging Face datasets: pip install 'fourfold[hf]'") from error
    try:
        # As Arrow: other formats decode an image as soon as its row is looked at.
        return datasets.load_from_disk(str(folder)).with_format("arrow")
    except Exception as error:  # it lets through whatever JSON, Arrow or the disk raise
        raise DataError(f"{folder}: cannot load this dataset ({error}). Save it again with save_to_disk.") from error


def _type_name(dataset: Any, column: str) -> str:
    return type(dataset.features[column]).__name__


def _media_column(dataset: Any, asked: str | None, folder: Path) -> str:
    """Return the column of images, or else of videos; `asked` counts only where a dataset has such a column."""
    of_type = {kind: [name for name in dataset.features if _type_name(dataset, name) == kind] for kind in KINDS}
    usable = of_type["Image"] + of_type["Video"]
    if not usable:
        have = ", ".join(f"{name} ({_type_name(dataset, name)})" for name in dataset.features)
        raise UsageError(f"{folder}: no column of type Image or Video; it has {have}. Cast one, and save it again.")
    return str(asked) if asked in usable else str(usable[0])


def _chosen(dataset: Any, columns: ListColumns, folder: Path, *, with_labels: bool) -> dict[str, str]:
    """Return the columns of label, split and key, those that there are. Raises UsageError if a given one is missing."""
    features = dataset.features
    label = columns.label
    if label is None and with_labels:
        classes = [name for name in features if _type_name(dataset, name) == "ClassLabel"]
        plain = [name for name in features if _type_name(dataset, name) in ("ClassLabel", "Value")]
        # A lone ClassLabel is the label whatever its name; of several, such as fine and coarse, none is.
        label = find_column(LABEL_COLUMNS, plain) or (classes[0] if len(classes) == 1 else None)
    chosen = {"label": label if with_labels else None, "split": columns.split, "key": columns.key}
    for role, name in chosen.items():
        if name is not None and name not in features:
            have = ", ".join(features)
            raise UsageError(f"{folder}: no column {name}; it has {have}. Set {role}_column to one of them.")
    return {role: name for role, name in chosen.items() if name is not None}


def _rows(dataset: Any, source: _Source, columns: ListColumns, *, with_labels: bool) -> Iterator[Found]:
    chosen = _chosen(dataset, columns, source.folder, with_labels=with_labels)
    # 1. Only the columns that are needed are read: others may hold gigabytes.
    features = dataset.features
    class_names = getattr(features[chosen["label"]], "names", None) if "label" in chosen else None
    wanted = dataset.select_columns(list({source.column, *chosen.values()}))
    num_items = num_labels = 0
    # 2. Sizes and paths of the stored files, batch by batch; their bytes stay where they are.
    for start in range(0, len(wanted), BATCH_ROWS):
        table = wanted[start : start + BATCH_ROWS]
        facts = {role: table.column(name).to_pylist() for role, name in chosen.items()}
        for index, (size, path) in enumerate(_stored(table.column(source.column))):
            row = {role: values[index] for role, values in facts.items()}
            try:
                item = _item(source, start + index, size, path, row, class_names)
            except ValueError as error:
                name = f"{source.name}/{start + index:08d}"
                yield Reject(key=safe_key(name), source=name, reason=str(error))
                continue
            if isinstance(item, SourceItem):
                num_items, num_labels = num_items + 1, num_labels + (item.label is not None)
            yield item
    # 3. A label that was not found is told with the columns that could hold it.
    others = {source.column, *(name for role, name in chosen.items() if role != "label")}
    if with_labels and num_items and not num_labels and (found := [name for name in features if name not in others]):
        yield Note(source.name, no_label_text(found))


def _stored(column: Any) -> Iterator[tuple[int | None, str | None]]:
    """Return for each row the length of the stored bytes (None: not stored) and the path; no bytes are read."""
    import pyarrow.compute as pc

    sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    return zip(sizes, pc.struct_field(column, "path").to_pylist(), strict=True)


def _item(
    source: _Source, row: int, size: int | None, path: str | None, facts: Mapping[str, Any], names: list[str] | None
) -> SourceItem | Reject:
    label = _class_of(facts.get("label"), names) if names is not None else label_text(facts.get("label"))
    name = f"{source.name}/{row:08d}"
    key = safe_key(f"{printable(str(facts['key']))}." if facts.get("key") not in (None, "") else name)
    if size is None:
        item = _outside(source, path, name)
    else:
        location = f"{source.folder}#{source.column}"
        item = SourceItem(location, "dataset", row, size, source.modified_ns, name, key, source.kind)
    if isinstance(item, Reject):
        return item
    return item._replace(key=key, label=label, split=split_name(facts.get("split")) or source.split)


def _class_of(number: int | None, names: list[str]) -> str | None:
    """Return the name of a ClassLabel; None for -1, which means none. Raises ValueError for an unnamed number."""
    if number is None or number == -1:
        return None
    # Another negative number would pick a name from the end.
    if not 0 <= number < len(names):
        raise ValueError(f"label {number}; need -1 (none) or the number of one of its {len(names)} classes")
    return class_name(names[number])


def _outside(source: _Source, path: str | None, name: str) -> SourceItem | Reject:
    """Return the item of a row that only names a file of this machine."""
    if not path:
        raise ValueError("no image in this row")
    try:
        facts = Path(path).stat()
    except OSError:
        facts = None
    return local_item(str(Path(path).absolute()), name, kind_of(path) or source.kind, facts)


class Rows:
    """Stored bytes of one column's rows."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._rows = dataset.select_columns([column])

    def read(self, row: int) -> bytes:
        """Return the bytes of a row. Raises UnusableError if the dataset is no longer the one that was listed."""
        if row >= len(self._rows):
            raise UnusableError(f"the dataset has only {len(self._rows)} rows now")
        content = self._rows[row].column(0)[0].as_py()["bytes"]
        if not isinstance(content, bytes):
            raise UnusableError("the row holds no bytes now")
        return content


def open_rows(location: str) -> Rows:
    """Return the rows at "FOLDER#COLUMN". Raises OSError if the dataset cannot be loaded any more."""
    folder, _, column = location.rpartition("#")
    try:
        return Rows(_load(Path(folder)), column)
    except DataError as error:
        raise OSError(str(error)) from error
