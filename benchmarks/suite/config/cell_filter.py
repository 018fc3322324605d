"""`include` and `exclude`: partial coordinates in, which cells run out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.suite.config.yaml_source import YamlSource, allowed_names
from benchmarks.suite.stages import TaskSet, shown_value
from pipelines.base.config import Location

__all__ = ["CellFilter", "check_filters", "with_names"]

Coordinates = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFilter:
    """Keeps a cell that agrees with one of `include`, or with any if there are none, and with none of `exclude`.

    Each entry: value, or list of values, by coordinate. Only the coordinates that an entry names matter.
    """

    include: Sequence[Coordinates] = ()
    exclude: Sequence[Coordinates] = ()

    def keeps(self, coordinates: Coordinates) -> bool:
        """Return whether the cell with these coordinates is run."""
        if self.include and not any(_agrees(entry, coordinates) for entry in self.include):
            return False
        return not any(_agrees(entry, coordinates) for entry in self.exclude)


def check_filters(source: YamlSource, entries: Mapping[str, Sequence[Coordinates]], allowed: Mapping[str, Any]) -> None:
    """Raise UsageError for an entry that names no coordinate, an unknown one, or a value that no cell has.

    entries: by "include" and "exclude". allowed: the values of each coordinate.
    """
    for section, given in entries.items():
        for index, entry in enumerate(given):
            if not entry:
                raise source.error((section, index), f" is empty.{allowed_names('', allowed)}")
            for name, wanted in entry.items():
                place: Location = (section, index, name)
                if name not in allowed:
                    raise source.error(place, f": unknown coordinate.{allowed_names(name, allowed)}")
                values = allowed[name]
                for one in wanted if isinstance(wanted, list) and wanted not in values else [wanted]:
                    if not any(_is_same(one, value) for value in values):
                        shown = [shown_value(value) for value in values]
                        raise source.error(place, f" = {shown_value(one)}: no such value.{allowed_names(one, shown)}")


def with_names(entries: Sequence[Coordinates], task_sets: Sequence[TaskSet]) -> list[dict[str, Any]]:
    """Return entries in which a task set may also be given as in `task_sets` and `baselines`: random_init, all."""
    names = {one.tasks[0]: one.name for one in reversed(task_sets) if len(one.tasks) == 1 and not one.options}
    names["random_init"] = "random init"
    names["all"] = next((one.name for one in task_sets if one.name in ("all four", "all tasks")), "all")

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return names.get(value, value) if isinstance(value, str) else value

    return [{key: named(value) if key == "task_set" else value for key, value in entry.items()} for entry in entries]


def _agrees(entry: Coordinates, coordinates: Coordinates) -> bool:
    return all(
        _is_same(wanted, coordinates[name])
        or (isinstance(wanted, list) and any(_is_same(one, coordinates[name]) for one in wanted))
        for name, wanted in entry.items()
    )


def _is_same(given: Any, value: Any) -> bool:
    """Return whether two values are equal; true is not 1 here, and `off` is false."""
    if isinstance(given, bool) or isinstance(value, bool):
        return shown_value(given) == shown_value(value)
    return bool(given == value)
