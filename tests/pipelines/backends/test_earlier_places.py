"""Scripts written before modules moved still run, and are told the new place."""

import importlib
import sys

import pytest

# What README and docs of the earlier version imported from there.
MOVED = {
    "pipelines.config": (
        "pipelines.base.config",
        ("Config", "apply_overrides", "load_config", "read_yaml", "validate"),
    ),
    "pipelines.backends.dali": ("pipelines.decode.dali", ("DaliBackend",)),
}


@pytest.mark.parametrize("old", MOVED)
def test_an_earlier_place_gives_the_same_objects_and_names_the_new_place(
    old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, names = MOVED[old]
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved: import {new}"):
        earlier = importlib.import_module(old)
    now = importlib.import_module(new)
    assert all(getattr(earlier, name) is getattr(now, name) for name in names)
