import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.sources.item_columns import (
    ROW_SCHEMA,
    Place,
    Places,
    items_of,
    key_hash,
    keys_of,
    pack,
    renumbered,
)
from pipelines.shards.sources.items import SourceItem, safe_key

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def item(location: str, source: str, key: str | None = None, **others: object) -> SourceItem:
    found = SourceItem(location, "file", 0, 5, 7, source, key or safe_key(source), "image")
    return found._replace(**others)


ITEMS = [
    item("/data/a/x.jpg", "a/x.jpg"),
    item("/data/b.c/x", "b.c/x", "b_c/x"),
    item("/other/y.jpg", "y.jpg", "mine"),
    item("/data/t.tar", "t.tar/in/z.jpg", via="tar", offset=1536),
    item("/data/rows", "rows/7", via="dataset", offset=7, size=-1, modified_ns=0),
    item("s3://bucket/ü.png", "ü.png"),
]


def packed(items: list[SourceItem], places: Places, *, keep_keys: bool = False) -> pa.RecordBatch:
    return pack(items, range(len(items)), places, keep_keys=keep_keys)


@pytest.mark.parametrize("keep_keys", [False, True])
def test_items_come_back(keep_keys: bool) -> None:
    places = Places()
    rows = packed(ITEMS, places, keep_keys=keep_keys)
    assert rows.schema == ROW_SCHEMA
    assert list(items_of(rows, places.table, "image")) == ITEMS
    assert keys_of(rows) == [one.key for one in ITEMS]
    assert rows.column("label").to_pylist() == list(range(len(ITEMS)))


@given(st.lists(st.tuples(names, names, st.booleans()), min_size=1))
def test_any_text_comes_back(texts: list[tuple[str, str, bool]]) -> None:
    items = [item(folder + name if is_below else folder, name) for folder, name, is_below in texts]
    places = Places()
    assert list(items_of(packed(items, places), places.table, "image")) == items


def test_a_folder_is_stored_once_and_plain_keys_not_at_all() -> None:
    places = Places()
    rows = packed([item(f"/data/c/{n}.jpg", f"c/{n}.jpg") for n in range(9)], places)
    assert places.table == [Place("/data/", False)]
    assert set(rows.column("key").to_pylist()) == {""}


def test_numbers_of_places_do_not_depend_on_what_else_was_listed() -> None:
    alone, later = Places(), Places()
    for n in range(5):
        later.number(f"/first/{n}/a", "a")
    want = renumbered(packed(ITEMS, alone), alone.table)
    found = renumbered(packed(ITEMS, later), later.table)
    assert found[0].equals(want[0])
    assert found[1] == want[1]
    assert list(items_of(*found, "image")) == ITEMS


def test_hash_of_a_key_is_xxh3() -> None:
    assert key_hash("cat/bär") == xxhash.xxh3_64_intdigest("cat/bär".encode())
    # The order of all shuffled shards hangs on it: a change here is a change of all of them.
    assert key_hash("cat/0001") == 10915486164548988158
