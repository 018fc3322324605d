from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.adopting.unique_keys import UniqueKeys

KEYS = st.sampled_from(["a", "b", "a_2", "a_3", "b_2", "a_2_2"])


def renamed(parts: list[list[str]]) -> list[list[str]]:
    keys = UniqueKeys()
    for part in parts:
        keys.add(part)
    return [keys.renamed(part) for part in parts]


def test_the_second_of_a_key_gets_a_number() -> None:
    assert renamed([["a", "b"], ["a", "c"], ["a"]]) == [["a", "b"], ["a_2", "c"], ["a_3"]]
    assert renamed([["a", "a_2"], ["a", "a"]]) == [["a", "a_2"], ["a_3", "a_4"]]
    assert renamed([[], ["x"]]) == [[], ["x"]]


@given(st.lists(st.lists(KEYS, max_size=6), max_size=4))
def test_no_key_is_given_twice_and_first_ones_stay(parts: list[list[str]]) -> None:
    given_keys = [key for part in renamed(parts) for key in part]
    before = [key for part in parts for key in part]
    assert len(set(given_keys)) == len(given_keys) == len(before)
    for key in set(before):
        assert given_keys[before.index(key)] == key
    assert all(new == old or new.startswith(f"{old}_") for new, old in zip(given_keys, before, strict=True))
