import pytest

from pipelines.shards.tools import duplicate_keys as duplicates
from pipelines.shards.tools.duplicate_keys import KeyCheck


def found(parts: list[list[str]]) -> tuple[list[str], list[int]]:
    """The duplicates, and the parts that were asked for again."""
    check, asked = KeyCheck(), list[int]()
    for part in parts:
        check.add(part)

    def keys_of(index: int) -> list[str]:
        asked.append(index)
        return parts[index]

    return check.duplicates(keys_of), asked


def test_duplicates_within_and_across_parts_are_named() -> None:
    assert found([["a", "b", "ü"], [], ["x", "y"], ["ü", "c", "c"]]) == (["c", "ü"], [0, 3])


@pytest.mark.parametrize("parts", [[], [[]], [["a"]], [["a"], ["b"], ["c", ""]]])
def test_different_keys_are_not_read_again(parts: list[list[str]]) -> None:
    assert found(parts) == ([], [])


def test_keys_of_equal_hash_are_no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates.xxhash, "xxh3_64_intdigest", lambda key: len(key))
    assert found([["a", "b"], ["c", "dd"], ["b"]]) == (["b"], [0, 1, 2])
