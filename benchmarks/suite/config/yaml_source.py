"""A YAML file and the lines of its keys: the place that every error about a suite names."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.base.config import Location
from pipelines.base.errors import UsageError

__all__ = ["YamlSource", "allowed_names", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlSource:
    """Path of a suite file, and line (from 1) by location of a key."""

    path: str
    lines: Mapping[Location, int]

    def at(self, *location: str | int) -> str:
        """Return "FILE:LINE" of a key, or of the nearest key around it that the file holds."""
        around = (location[:length] for length in range(len(location), 0, -1))
        line = next((self.lines[one] for one in around if one in self.lines), None)
        return f"{self.path}:{line}" if line else self.path

    def error(self, location: Location, problem: str) -> UsageError:
        """Return an error that begins with file, line and key."""
        name = ".".join(str(part) for part in location)
        return UsageError(f"{self.at(*location)}: {name}{problem}")

    def below(self, *location: str | int) -> dict[Location, int]:
        """Return the lines of the mapping at `location`, by location inside of it."""
        depth = len(location)
        return {one[depth:]: line for one, line in self.lines.items() if one[:depth] == location and len(one) > depth}

    def moved(self, places: Mapping[Location, Location]) -> "YamlSource":
        """Return the source for settings in which the value at each new location comes from another place of the file.

        places: new location -> location in the file.
        """
        lines = {one: line for one, line in self.lines.items() if not any(one[: len(new)] == new for new in places)}
        for new, given in places.items():
            lines |= {(*new, *inner): line for inner, line in self.below(*given).items()}
            # Values of `--set` stand in no line.
            if (line := self.lines.get(given, self.lines.get(given[:-1]))) is not None:
                lines[new] = line
        return YamlSource(path=self.path, lines=lines)


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return " Did you mean NAME?" for a name like one of those allowed; empty without one."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def allowed_names(name: object, allowed: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest one, and all."""
    names = list(allowed)
    return f"{nearest(name, names)} Allowed: {', '.join(names) or 'none'}."
