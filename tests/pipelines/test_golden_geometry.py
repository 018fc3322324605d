"""Golden order and geometry: what is drawn for ten samples stays what it was. See golden_geometry.py to change it."""

import json

import pytest

from tests.made.golden_geometry import PATH, TASKS, compute


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compute(tmp_path_factory.mktemp("golden") / "shards")


@pytest.fixture(scope="module")
def golden():
    return json.loads(PATH.read_text())


def test_the_order_is_what_it_was(found, golden):
    assert found["keys"] == golden["keys"]


@pytest.mark.parametrize("task", TASKS)
def test_the_geometry_is_what_it_was(found, golden, task):
    assert sorted(found["geometry"][task]) == sorted(golden["geometry"][task])
    for name, values in golden["geometry"][task].items():
        assert found["geometry"][task][name] == values, f"{name}: if it is meant, python -m tests.made.golden_geometry"
