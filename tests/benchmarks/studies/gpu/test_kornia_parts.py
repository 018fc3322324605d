"""The rule that chooses between Kornia's operations and ours, and a row of the study."""

from benchmarks.studies.gpu.kornia_parts import MAX_HOST_COPIES, MAX_TIME_RATIO, PartsOptions, is_kornia_taken, measure


def test_kornia_is_taken_if_it_is_near_not_slow_and_does_not_wait():
    assert is_kornia_taken(0.5, 0.5, MAX_TIME_RATIO, MAX_HOST_COPIES)
    assert not is_kornia_taken(0.51, 0.5, 1.0)
    assert not is_kornia_taken(0.0, 0.5, MAX_TIME_RATIO + 0.01)
    assert not is_kornia_taken(0.0, 0.5, 1.0, MAX_HOST_COPIES + 1)


def test_every_row_follows_the_rule():
    rows = measure(PartsOptions(num_pictures=2, side_px=64, num_repeats=1))["rows"]
    assert len(rows) == 9
    for row in rows:
        farthest = max(row["kornia_difference"], row["kornia_difference_tf32"])
        taken = is_kornia_taken(
            farthest, row["allowed"], row["time_ratio"]["median"], row["kornia_host_copies_a_batch"]
        )
        assert row["kept"] == ("Kornia's" if taken else "ours")
    # In these ours stay for another reason than time.
    (sampling,) = (row for row in rows if row["name"].startswith("sampling"))
    assert sampling["kornia_host_copies_a_batch"] > MAX_HOST_COPIES
