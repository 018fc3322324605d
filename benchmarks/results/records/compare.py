"""Whether two records may be compared, and what changed between them: configuration, data, code, machine.

Two numbers may be compared if the same thing was measured on the same data by the same code. What may differ is what is
compared: how a trunk was pretrained, its depth, its seed. A machine may differ, too: it changes seconds, and accuracies
by less than another seed does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results.record import Record

__all__ = ["Change", "Comparison", "compare_records", "compared"]

NO_RESULT = frozenset(
    (
        "images",
        "clips",
        "num_threads",
        "num_workers",
        "prefetch_batches",
        "cache_gib",
        "shared_features",
        "cpu_threads",
        "log_every_steps",
        "checkpoint",
        "backend",
    )
)
"""Keys of a configuration that say where and how fast, and change no result beyond rounding."""
OUTSIDE = ("seconds", "feature_s", "probe_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `part`: configuration, data, code or machine; `forbids`: why numbers may then not be compared."""

    part: str
    name: str
    first: str
    second: str
    forbids: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two records of the same kind. `results`: name, first, second and their difference, of numbers that both have."""

    kind: str
    first: str
    second: str
    changes: list[Change]
    results: list[tuple[str, float, float, float]]

    @property
    def reasons(self) -> list[str]:
        """Why the two may not be compared; empty if they may."""
        return list(dict.fromkeys(one.forbids for one in self.changes if one.forbids))


def compare_records(first: Sequence[Record], second: Sequence[Record]) -> tuple[list[Comparison], list[str]]:
    """Return comparisons of records with the same kind and label, and the kind and label of those without a partner.

    Two records alone are compared whatever they are named, with what they were made from left aside.
    """
    if len(first) == len(second) == 1:
        return [compared(first[0], second[0])], []
    by_name = [{(one.kind, one.label): one for one in records} for records in (first, second)]
    shared = [name for name in by_name[0] if name in by_name[1]]
    alone = sorted(set(by_name[0]) ^ set(by_name[1]))
    found = [compared(by_name[0][name], by_name[1][name]) for name in shared]
    return found, [f"{kind.replace('_', ' ')}: {label}" for kind, label in alone]


def compared(first: Record, second: Record) -> Comparison:
    """Compare two records."""
    changes = []
    if first.kind != second.kind:
        changes.append(_change("configuration", "kind", first.kind, second.kind, "they measure different things"))
    changes += _configurations(first, second)
    changes += _data(first, second)
    changes += _code(first, second)
    for name in ("cpu_name", "num_cores", "gpu_name", "machine"):
        values = getattr(first.environment, name), getattr(second.environment, name)
        if values[0] != values[1]:
            changes.append(_change("machine", name, *values))
    return Comparison(
        kind=first.kind, first=first.label, second=second.label, changes=changes, results=_results(first, second)
    )


def _configurations(first: Record, second: Record) -> list[Change]:
    before, after = _flat(first.config), _flat(second.config)
    # Of a pretraining, the configuration is what a suite compares; of an evaluation, it is the measure.
    forbids = "" if first.kind == "pretrain" else "they are measured with other options"
    changes = []
    for name in sorted(before | after):
        if before.get(name) != after.get(name):
            is_harmless = bool(NO_RESULT & set(name.split(".")))
            changes.append(
                _change(
                    "configuration",
                    name,
                    before.get(name, "not there"),
                    after.get(name, "not there"),
                    "" if is_harmless else forbids,
                )
            )
    return changes


def _data(first: Record, second: Record) -> list[Change]:
    changes = []
    for name in sorted(first.inputs | second.inputs):
        values = first.inputs.get(name, "not there"), second.inputs.get(name, "not there")
        if values[0] != values[1]:
            # Another trunk is what an evaluation compares.
            forbids = "" if name in ("trunk", "weights") else "they read other data"
            changes.append(_change("data", name, values[0][:12], values[1][:12], forbids))
    return changes


def _code(first: Record, second: Record) -> list[Change]:
    changes = []
    if first.code != second.code:
        known = bool(first.code and second.code)
        why = "other code made them" if known else ""
        values = first.code[:12] or "none", second.code[:12] or "none"
        changes.append(_change("code", "digest of the sources", *values, why))
    places = first.environment, second.environment
    if places[0].commit != places[1].commit:
        # Where both have digests of the sources they ran, these decide, and not the commit.
        has_digests = bool(first.code and second.code)
        why = "" if has_digests else "they come from different commits, without digests of the code that ran"
        changes.append(_change("code", "commit", places[0].commit[:12], places[1].commit[:12], why))
    for record in (first, second):
        if record.environment.is_dirty and not record.code:
            why = f"{record.label}: made with changes that are in no commit"
            changes.append(_change("code", "uncommitted changes", places[0].is_dirty, places[1].is_dirty, why))
    versions = places[0].versions, places[1].versions
    for name in sorted(versions[0] | versions[1]):
        one, other = versions[0].get(name, "none"), versions[1].get(name, "none")
        if one != other:
            is_ours = name == "fourfold" and _minor(one) != _minor(other)
            why = "records are comparable within one major.minor version of fourfold" if is_ours else ""
            changes.append(_change("code", f"version of {name}", one, other, why))
    return changes


def _results(first: Record, second: Record) -> list[tuple[str, float, float, float]]:
    found = []
    for name, value in first.results.items():
        other: Any = second.results.get(name)
        is_count = name in OUTSIDE or name.startswith("num_")
        if not is_count and _is_number(value) and _is_number(other):
            found.append((name, float(value), float(other), float(other) - float(value)))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return a nested configuration by dotted key."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{name}.{key}" if name else str(key))
        return found
    return {name: value}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _change(part: str, name: str, first: Any, second: Any, forbids: str = "") -> Change:
    return Change(part=part, name=name, first=str(first), second=str(second), forbids=forbids)
