"""CKA between the trunks of a suite: of all task sets and depths with each other, means over seeds.

From the records of `unlabelled` with `against_suite: true`, which compares every trunk with those of earlier cells of
its seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results.charts.figure import Chart
from benchmarks.results.charts.similarity import similarity_map
from benchmarks.results.report.collect import task_sets_of
from benchmarks.results.report.view import point_of
from benchmarks.results.statistics import Summary, summarize
from benchmarks.suite.status import CellStatus, SuiteStatus

__all__ = ["TrunkSimilarity", "similarities_of", "similarity_chart"]

Trunk = tuple[str, int]
"""(task set, depth)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSimilarity:
    """CKA by one evaluation at one point of the axes. `values`: by row and an earlier column of `names`."""

    evaluation: str
    point: str
    names: list[str]
    values: dict[tuple[int, int], Summary]

    @property
    def title(self) -> str:
        place = f" at {self.point}" if self.point else ""
        return f"CKA between trunks{place}, of the same images: means over seeds; stronger color: more alike"

    @property
    def table(self) -> list[tuple[str, list[Summary | None]]]:
        """Name and numbers of every row, to both sides of the diagonal."""
        places = range(len(self.names))
        return [
            (name, [self.values.get((max(row, column), min(row, column))) for column in places])
            for row, name in enumerate(self.names)
        ]


def similarities_of(status: SuiteStatus) -> list[TrunkSimilarity]:
    """Return what there is to show, by evaluation and point; [] in a suite that compares no trunks."""
    trunks = {stage.key: trunk for one in status.cells if (stage := one.cell.pretrain) and (trunk := _trunk(one))}
    names = list(dict.fromkeys(one.name for one in task_sets_of(status).values()))
    # Depth by depth, so that blocks of one depth stand out.
    order = {trunk: (trunk[1], names.index(trunk[0])) for trunk in trunks.values()}
    found: dict[tuple[str, str], dict[tuple[Trunk, Trunk], list[float]]] = {}
    for one in status.cells:
        for evaluation, first, second, value in _compared(one, trunks):
            low, high = sorted((first, second), key=order.__getitem__)
            pairs = found.setdefault((evaluation, point_of(one)), {})
            pairs.setdefault((low, high), []).append(value)
    shown = []
    for (evaluation, point), pairs in found.items():
        # Trunks that do not depend on the axes, such as random weights, belong to every point.
        if not point and any(name == evaluation and other for name, other in found):
            continue
        every = {**found.get((evaluation, ""), {}), **pairs}
        here = sorted({trunk for pair in every for trunk in pair}, key=order.__getitem__)
        index = {trunk: number for number, trunk in enumerate(here)}
        shown.append(
            TrunkSimilarity(
                evaluation=evaluation,
                point=point,
                names=[f"{name}, depth {depth}" for name, depth in here],
                values={(index[high], index[low]): summarize(values) for (low, high), values in every.items()},
            )
        )
    return shown


def similarity_chart(one: TrunkSimilarity) -> Chart:
    """Draw the map of one evaluation at one point."""
    slug = f"cka-{one.evaluation}{f'-{one.point}' if one.point else ''}"
    slug = "".join(letter if letter.isalnum() else "-" for letter in slug)
    return similarity_map(slug, one.title, one.names, one.values)


def _trunk(one: CellStatus) -> Trunk | None:
    return None if one.cell.depth is None else (one.cell.task_set.name, one.cell.depth)


def _compared(one: CellStatus, trunks: dict[str, Trunk]) -> Iterator[tuple[str, Trunk, Trunk, float]]:
    """Yield evaluation, both trunks and CKA. A constant trunk has none."""
    own = _trunk(one)
    for evaluation, record in one.records.items():
        for label, value in (record.results.get("cka_against") or {}).items():
            # Runs outside of the suite, of `against`, have no stage of it.
            other = trunks.get(record.inputs.get(f"trunk of {label}", ""))
            if own is not None and other is not None and other != own and isinstance(value, float):
                yield evaluation, own, other, value
