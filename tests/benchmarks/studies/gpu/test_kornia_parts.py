"""Our operations against the references; the rule; and that each version of an operation is really one."""

import pytest

from benchmarks.studies.gpu.kornia_parts import MAX_TIME_RATIO, is_kornia_taken, parts

PARTS = {part.name: part for part in parts(count=2, side=64)}


@pytest.mark.parametrize("name", PARTS)
def test_ours_is_as_near_to_the_reference_as_the_task_needs(name):
    part = PARTS[name]
    assert part.difference(part.ours) <= part.allowed


@pytest.mark.parametrize("name", PARTS)
def test_both_versions_have_one_shape(name):
    part = PARTS[name]
    assert part.ours().shape == part.kornia().shape == part.reference().shape


def test_kornia_is_taken_if_it_is_near_and_not_slow():
    assert is_kornia_taken(0.5, 0.5, MAX_TIME_RATIO)
    assert not is_kornia_taken(0.51, 0.5, 1.0)
    assert not is_kornia_taken(0.0, 0.5, MAX_TIME_RATIO + 0.01)
