"""Philox against its authors' numbers, and the uniform numbers made of its words."""

import numpy as np
import pytest

from pipelines.kernels.philox import philox, write_uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected) -> None:  # type: ignore[no-untyped-def]
    words = [np.uint64(word) for word in (*counter, *key)]
    assert tuple(int(word) for word in philox(*words)) == expected


def test_numbers_are_53_bits_of_two_words() -> None:
    counter, key, made = np.array([[7], [8], [9]], np.uint64), np.array([[3], [4]], np.uint64), np.empty((1, 6))
    write_uniform(5, counter, key, made)
    for block in range(3):
        words = [int(word) for word in philox(*(np.uint64(word) for word in (5 + block, 7, 8, 9, 3, 4)))]
        expected = [((words[n] >> 5) << 26 | words[n + 1] >> 6) / 2**53 for n in (0, 2)]
        assert made[0, 2 * block : 2 * block + 2].tolist() == expected
