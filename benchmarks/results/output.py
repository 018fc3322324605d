"""Output of commands: tables and facts for people, or the same as one JSON document for programs (`--json`)."""

import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["AsJson", "Overrides", "plain", "print_facts", "print_json", "print_table", "say", "size_text"]

AsJson = typer.Option(False, "--json", help="Print one JSON document instead of a table.")
Overrides = typer.Option(
    None,
    "--set",
    metavar="NAME=VALUE",
    help="Override one key of the configuration; may be repeated. Example: --set trunk.depth=34",
)


def plain(value: Any) -> Any:
    """Return a value that `json` can write, from dataclasses, configs, paths, tuples and NumPy numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    # Numbers of NumPy and of torch, without importing either.
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, and nothing else."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a title and below it a table, numbers aligned right."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    rows = [list(row) for row in rows]
    for index, column in enumerate(columns):
        is_number = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _print(title, table)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a title and below it names and values, one pair a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, _cell(value))
    _print(title, table)


def say(message: str) -> None:
    """Print one line for people on stderr; stdout holds results only."""
    print(message, file=sys.stderr, flush=True)


def size_text(num_bytes: float) -> str:
    """Return bytes for people: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items()) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(title: str, table: Table) -> None:
    if sys.stdout.isatty():
        console = Console(highlight=False, markup=False)
        console.print(title, style="bold")
        console.print(table)
        return
    # Into a file or pipe: wide, and no blanks at the ends of lines, so that diff and grep see only the content.
    text = io.StringIO()
    Console(file=text, width=200, highlight=False, markup=False).print(table)
    print("\n".join([title, *(line.rstrip() for line in text.getvalue().splitlines())]))
