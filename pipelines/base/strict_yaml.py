"""Strict YAML: text in; its value and the line of every key out. Refuses what YAML lets pass and nobody means.

Refused: a key that stands twice in one mapping (the last would win silently), and aliases that expand to very many
values ("billion laughs"), on which everything that walks over the value would hang.
"""

from typing import Any

import yaml

__all__ = ["Location", "YamlError", "parse_yaml"]

Location = tuple[str | int, ...]
MAX_ALIASED = 10_000
"""Values that aliases may add to those written out. Anchors in configs stand for tens of values."""


class YamlError(Exception):
    """What is wrong with a YAML text. `line`: counted from 1; None if it has none."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def parse_yaml(text: str) -> tuple[Any, dict[Location, int]]:
    """Return the value of one YAML document and the line (from 1) of every key and list item. Raises YamlError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        # The check comes before the value is made: what it refuses would take minutes in the steps after.
        lines = _checked_lines(node)
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError("not usable YAML: brackets inside of brackets, hundreds deep; write it flatter") from error
    except (ValueError, TypeError) as error:  # PyYAML lets through what Python says of a date with a 13th month
        raise YamlError(f"not valid YAML: {error}") from error


def _checked_lines(root: Any) -> dict[Location, int]:
    lines: dict[Location, int] = {}
    # Anchored nodes are one object wherever an alias names them: the difference counts what aliases add.
    visited, num_visits, open_nodes = set[int](), 0, set[int]()

    def visit(node: Any, location: Location) -> None:
        nonlocal num_visits
        num_visits += 1
        visited.add(id(node))
        line = node.start_mark.line + 1
        # Both checks before the children: an alias bomb grows with every level, a circle never ends.
        if num_visits - len(visited) > MAX_ALIASED:
            raise YamlError(f"aliases (*name) add more than {MAX_ALIASED:,} values; write out what is meant", line)
        if id(node) in open_nodes:
            raise YamlError("an alias (*name) stands inside of what it names; write out what is meant", line)
        open_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            for key, value in node.value:
                inner = (*location, key.value)
                lines[inner] = key.start_mark.line + 1
                visit(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                inner = (*location, index)
                lines[inner] = value.start_mark.line + 1
                visit(value, inner)
        # Only nodes on the way down are open: the same alias twice, side by side, is no circle.
        open_nodes.discard(id(node))

    if root is not None:
        visit(root, ())
    return lines


def _check_keys(node: Any) -> None:
    """Raise YamlError if a key of a mapping is no plain value, or stands in it twice."""
    first_lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError("a list or mapping stands where a name is needed; put text with brackets in quotes", line)
        if key.value in first_lines:
            raise YamlError(f"{key.value} stands here and at line {first_lines[key.value]} already; keep one", line)
        first_lines[key.value] = line
