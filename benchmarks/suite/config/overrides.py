"""Overrides by dotted key, as `--set` has them: those of variants, of axes and of single task sets."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.suite.config.yaml_source import YamlSource, allowed_names
from pipelines.base.config import Location

__all__ = ["check_key", "check_no_overlap", "location_of", "with_overrides"]

SECTIONS = ("pretrain", "evaluations")
SINGLE_KEYS = ("images", "clips", "train_split", "test_split")
SUITE_OWNED = {
    ("pipeline", "images"): "images",
    ("pipeline", "clips"): "clips",
    ("pipeline", "split"): "train_split",
    ("trunk", "depth"): "depths",
    ("seed",): "seeds",
}
"""Keys below `pretrain` that the suite sets, and the suite's key for them."""


def location_of(key: str) -> Location:
    """Return the location that a dotted key stands for."""
    return tuple(key.split("."))


def with_overrides(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which the value of each dotted key is replaced; sections on the way are made.

    Raises ValueError where a value stands in the way of a section.
    """
    result = dict(settings)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            inner = target.get(parent)
            if not isinstance(inner, Mapping | None):
                raise ValueError(f"{parent} holds {inner!r}, not a mapping")
            # Copied on the way down: other points of the suite share what lies beside.
            target[parent] = dict(inner or {})
            target = target[parent]
        target[last] = value
    return result


def check_key(source: YamlSource, place: Location, key: str, only: tuple[str, ...] = (*SECTIONS, *SINGLE_KEYS)) -> None:
    """Raise UsageError unless a dotted key names one value that cells may differ in. `place`: where the file has it."""
    first, *rest = key.split(".")
    examples = "pretrain.trunk.width" if only == ("pretrain",) else "pretrain.trunk.width or images"
    if first not in only or not all((first, *rest)):
        allowed = [f"{name}.KEY" if name in SECTIONS else name for name in only]
        raise source.error(place, f": not a key that can be set here.{allowed_names(first, allowed)}")
    if first in SECTIONS and not rest:
        raise source.error(
            place, f": would replace all of {first}; name one key in it, such as {examples}. Allowed: {first}.KEY."
        )
    if first in SINGLE_KEYS and rest:
        raise source.error(place, f": {first} is one value and holds no keys. Allowed: {first}.")
    if first == "pretrain" and (owner := SUITE_OWNED.get(tuple(rest))):
        raise source.error(place, f": the suite sets it. Allowed: {owner} at the top level.")


def check_no_overlap(source: YamlSource, places: Iterable[tuple[Location, str]]) -> None:
    """Raise UsageError where one dotted key is set twice, or inside of another that is. places: (in the file, key)."""
    seen: list[tuple[Location, str]] = []
    for place, key in places:
        for other_place, other in seen:
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                where = ".".join(str(part) for part in other_place)
                raise source.error(
                    place, f": {where} at {source.at(*other_place)} sets it, too. Allowed: one place for each key."
                )
        seen.append((place, key))
