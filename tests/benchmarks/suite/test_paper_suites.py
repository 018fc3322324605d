"""The packaged suites of the paper's tables: one cell per row of a table and seed, and what makes rows differ."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.graph import expand
from benchmarks.suite.stages import Cell, Graph
from benchmarks.suite.suite_config import load_suite
from tests.made.pictures import stored_clips, stored_images, write_splits

ROWS = {
    "paper-table-2": [
        "random init",
        "supervised",
        "relative position",
        "RP + Col",
        "RP + Ex",
        "RP + MS",
        "RP + Col + Ex",
        "all four",
    ],
    "paper-table-3": [
        "relative position, harmonize off",
        "RP + Col, harmonize off",
        "relative position, harmonize paper",
        "RP + Col, harmonize paper",
    ],
    "paper-table-4": [
        "all four, no lasso",
        "all four, eval-only lasso",
        "all four, pre-train-only lasso",
        "all four, pre-train & eval lasso",
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a few images and clips, and stand-ins for VOC2007 and NYUv2: planning reads their bytes, no more."""
    folder = tmp_path_factory.mktemp("data")
    splits = {split: stored_images(4, split=split) + stored_clips(2, split=split) for split in ("train", "val")}
    write_splits(folder / "shards", splits)
    for name in ("VOC2007", "nyu"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
    return folder


def planned(name: str, data: Path) -> Graph:
    places = {"images": "shards", "clips": "shards", "evaluations.detection.data": "VOC2007"}
    places["evaluations.depth.data"] = "nyu"
    return expand(load_suite(Path(name), [f"{key}={data / value}" for key, value in places.items()]))


@pytest.mark.parametrize("name", ROWS)
def test_a_suite_has_the_rows_of_its_table(name: str, data: Path) -> None:
    graph = planned(name, data)
    first = [cell for cell in graph.cells if cell.seed == 0]
    assert [cell.row for cell in first] == ROWS[name]
    assert len(graph.cells) == 3 * len(first)
    assert {cell.depth for cell in graph.cells} == {101}
    assert all(set(cell.evaluations) == {"linear_probe", "detection", "depth"} for cell in graph.cells)


def test_rows_differ_in_harmonization_and_in_lasso_alone(data: Path) -> None:
    off, _, paper, _ = (_config(cell) for cell in planned("paper-table-3", data).cells[:4])
    assert (off["pipeline"].pop("harmonize"), paper["pipeline"].pop("harmonize")) == ("off", "paper")
    assert off == paper
    cells = planned("paper-table-4", data).cells[:4]
    assert [_config(cell)["lasso"] for cell in cells] == [None, None, {"penalty": 0.01}, {"penalty": 0.01}]
    for kind in ("linear_probe", "detection", "depth"):
        options = [cell.evaluations[kind].config["options"] for cell in cells]
        assert [one.pop("lasso") for one in options] == [False, True, False, True]
        assert len({str(one) for one in options}) == 1


def test_tables_share_their_pretrainings(data: Path) -> None:
    """In one folder of results, what two tables have in common runs once."""
    second = {stage.key for stage in planned("paper-table-2", data).stages if stage.kind == "pretrain"}
    third = [stage for stage in planned("paper-table-3", data).stages if stage.kind == "pretrain"]
    fourth = [stage for stage in planned("paper-table-4", data).stages if stage.kind == "pretrain"]
    assert (len(third), len(fourth)) == (12, 6)
    assert (sum(one.key in second for one in third), sum(one.key in second for one in fourth)) == (6, 3)


def _config(cell: Cell) -> dict[str, Any]:
    assert cell.pretrain is not None
    return cell.pretrain.config
