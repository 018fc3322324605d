from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.suite_config import load_suite
from pipelines.base.errors import UsageError
from pipelines.tasks import PRETEXT_TASKS
from tests.made.made_suites import made_suite, write_suite


def refused(tmp_path: Path, *overrides: str, **changes: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_suite(write_suite(tmp_path, **changes), overrides)
    return str(caught.value)


def test_task_sets_get_names_roles_and_one_order(tmp_path: Path) -> None:
    suite = made_suite(tmp_path)
    assert [(one.name, one.role) for one in suite.task_sets] == [
        ("random init", "baseline"),
        ("colorization", "single"),
        ("exemplar", "single"),
        ("Col + Ex", "combined"),
    ]
    assert suite.task_sets[-1].tasks == ("colorization", "exemplar")


def test_all_means_every_pretext_task(tmp_path: Path) -> None:
    suite = made_suite(tmp_path, task_sets=["all"], clips=str(tmp_path / "shards"))
    assert suite.task_sets[-1].tasks == tuple(PRETEXT_TASKS)
    assert suite.task_sets[-1].name == "all four"


def test_cell_gets_only_its_tasks_with_their_options(tmp_path: Path) -> None:
    suite = made_suite(
        tmp_path, pretrain={"budget": {"steps": 2}, "pipeline": {"tasks": {"exemplar": {"task_weight": 0.5}}}}
    )
    by_name = {one.name: one for one in suite.task_sets}
    single = suite.pretrain_config(by_name["exemplar"], 10, 7)
    assert list(single.pipeline.tasks) == ["exemplar"]
    assert single.pipeline.tasks["exemplar"].task_weight == 0.5
    assert (single.trunk.depth, single.seed) == (10, 7)
    assert list(suite.pretrain_config(by_name["colorization"], 10, 7).pipeline.tasks) == ["colorization"]
    assert suite.pretrain_config(by_name["random init"], 10, 7).pipeline.tasks == {}


def test_probe_takes_the_pretraining_canvas_unless_told(tmp_path: Path) -> None:
    probe: Any = made_suite(tmp_path).evaluations["linear_probe"]
    assert probe.canvas_px == 64
    told: Any = made_suite(tmp_path, evaluations={"linear_probe": {"canvas_px": 48}}).evaluations["linear_probe"]
    assert told.canvas_px == 48


def test_overrides_reach_the_suite_and_are_kept(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path), ["seeds=[5]", "pretrain.trunk.width=0.5"])
    assert suite.config.seeds == [5]
    assert suite.pretrain_config(suite.task_sets[0], 10, 5).trunk.width == 0.5
    assert suite.overrides == ("seeds=[5]", "pretrain.trunk.width=0.5")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_sets": ["colorisation"]}, ["made-up.yaml:3", "Did you mean colorization?"]),
        ({"sedes": [1]}, ["unknown key sedes", "Did you mean seeds?"]),
        ({"baselines": ["random"]}, ["made-up.yaml", "random_init"]),
        ({"depths": [11]}, ["trunk.depth = 11"]),
        ({"depths": []}, ["depths"]),
        ({"seeds": [0, 0]}, ["0 given twice"]),
        ({"seeds": [-1]}, ["at least 0"]),
        ({"task_sets": ["exemplar", ["exemplar"]]}, ["given twice"]),
        ({"task_sets": [], "baselines": []}, ["no task_sets and no baselines"]),
        ({"images": None}, ["images"]),
        ({"evaluations": {"linear_prob": {}}}, ["unknown evaluation linear_prob", "Did you mean linear_probe?"]),
        ({"evaluations": {"linear_probe": {"pol": 3}}}, ["made-up.yaml:", "unknown key pol", "Did you mean pool?"]),
        ({"baselines": [], "evaluations": {"pixel_floor": {}}}, ["add pixel_floor to baselines"]),
        ({"task_sets": ["motion_segmentation"]}, ["motion segmentation needs clips"]),
        ({"pretrain": {"seed": 3, "budget": {"steps": 1}}}, ["pretrain.seed = 3", "use seeds"]),
        ({"pretrain": {"trunk": {"depth": 18}}}, ["pretrain.trunk.depth = 18", "use depths"]),
        ({"pretrain": {"bugdet": {"steps": 1}}}, ["unknown key bugdet", "Did you mean budget?"]),
        ({"pretrain": {"pipeline": {"tasks": {"exemplr": {}}}}}, ["unknown task exemplr", "Did you mean exemplar?"]),
        ({"pretrain": {}}, ["budget is missing"]),
        ({"name": "Not a name"}, ["name = 'Not a name'"]),
    ],
)
def test_wrong_suite_is_refused_with_place_and_fix(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    message = refused(tmp_path, **changes)
    assert [word for word in words if word not in message] == []


def test_error_in_pretraining_names_the_line_of_the_suite(tmp_path: Path) -> None:
    path = write_suite(tmp_path, pretrain={"budget": {"steps": 1}, "trunk": {"width": -1}})
    line = 1 + [text.strip() for text in path.read_text().splitlines()].index("width: -1")
    with pytest.raises(UsageError, match=rf"made-up\.yaml:{line}: trunk\.width = -1"):
        load_suite(path)


def test_packaged_suite_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    loaded = load_suite(Path("demo"), ["images=shards", "clips=shards"])
    assert (loaded.config.name, Path(loaded.source).name) == ("demo", "demo.yaml")


def test_one_kind_stands_twice_under_other_names(tmp_path: Path) -> None:
    given = {"linear_probe": {}, "wide": {"kind": "linear_probe", "options": {"pool": 5}}, "knn": {}}
    suite = made_suite(tmp_path, evaluations=given)
    assert dict(suite.kinds) | {"pixel_floor": ""} == {
        "linear_probe": "linear_probe",
        "wide": "linear_probe",
        "knn": "knn",
        "pixel_floor": "",
    }
    wide: Any = suite.evaluations["wide"]
    assert (wide.pool, wide.canvas_px) == (5, 64)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"wide": {"kind": "linear_prob"}}, ["unknown evaluation linear_prob", "Did you mean linear_probe?"]),
        ({"wide": {"kind": "linear_probe", "pool": 5}}, ["evaluations.wide.pool: unknown key pool", "kind, options"]),
        ({"wide": {"kind": "linear_probe", "options": {"pol": 5}}}, ["unknown key pol", "Did you mean pool?"]),
        ({"a b": {"kind": "knn"}}, ["need a name of a-z"]),
        ({"floor": {"kind": "pixel_floor"}}, ["stands once, under its own name"]),
    ],
)
def test_wrong_named_evaluations_are_told(tmp_path: Path, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        made_suite(tmp_path, evaluations=given)
    assert all(word in str(caught.value) for word in words), caught.value
