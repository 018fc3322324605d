from pathlib import Path

import pytest

from benchmarks.results.record import write_json, write_record
from benchmarks.suite.plan_file import suite_folder
from benchmarks.suite.stages import Stage
from benchmarks.suite.store.garbage import delete_garbage, find_garbage
from benchmarks.suite.store.stage_lock import stage_lock
from pipelines.base.errors import DataError
from tests.made.made_graphs import made_graph, made_record

STAGES = made_graph(4).stages


def plan(out: Path, name: str, stages: list[Stage]) -> None:
    content = {"stages": [{"kind": stage.kind, "key": stage.key} for stage in stages]}
    write_json(suite_folder(out, name) / "plan.json", content)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two suites; the second has dropped its last stage. The first stage is finished and has checkpoints."""
    for stage in STAGES[:6]:
        stage.folder(tmp_path).mkdir(parents=True)
        (stage.folder(tmp_path) / "trunk.pt").write_bytes(bytes(100))
        (stage.folder(tmp_path) / "checkpoint.pt").write_bytes(bytes(1000))
    (STAGES[0].folder(tmp_path) / "checkpoint-20.pt").write_bytes(bytes(500))
    write_record(STAGES[0].folder(tmp_path), made_record(STAGES[0]))
    (tmp_path / "stages" / "features").mkdir()
    (tmp_path / "stages" / "features" / "a.npy").write_bytes(bytes(70))
    plan(tmp_path, "first", list(STAGES[:3]))
    plan(tmp_path, "second", list(STAGES[2:5]))
    return tmp_path


def test_found_are_stages_of_no_suite_and_checkpoints_of_finished_ones(out: Path) -> None:
    found = {str(one.path.relative_to(out / "stages")): one.num_bytes for one in find_garbage(out)}
    first, last = STAGES[0].folder_name, STAGES[5].folder_name
    assert found == {f"{first}/checkpoint.pt": 1000, f"{first}/checkpoint-20.pt": 500, last: 1100}
    assert STAGES[5].folder(out).is_dir(), "nothing is deleted by looking"


def test_deleted_is_what_was_found_and_nothing_else(out: Path) -> None:
    assert delete_garbage(find_garbage(out)) == 2600
    assert find_garbage(out) == []
    left = sorted(path.parent.name for path in out.glob("stages/*/trunk.pt"))
    assert left == sorted(stage.folder_name for stage in STAGES[:5])
    # A stage that is not finished keeps what it resumes from.
    assert len(list(out.glob("stages/*/checkpoint.pt"))) == 4


def test_features_go_once_every_stage_has_finished(out: Path) -> None:
    for stage in STAGES[:5]:
        write_record(stage.folder(out), made_record(stage))
    features = [one for one in find_garbage(out) if one.path.name == "features"]
    assert [one.num_bytes for one in features] == [70]
    delete_garbage(features)
    assert not (out / "stages" / "features").exists()


def test_a_stage_at_work_stays(out: Path) -> None:
    found = find_garbage(out)
    with stage_lock(STAGES[5].folder(out)):
        assert delete_garbage(found) == 1500
    assert STAGES[5].folder(out).is_dir()


def test_without_plans_or_with_a_damaged_one_nothing_is_garbage(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no suite has run here"):
        find_garbage(tmp_path / "elsewhere")
    (suite_folder(out, "second") / "plan.json").write_text('{"stages": [')
    with pytest.raises(DataError, match=r"second/plan\.json: damaged"):
        find_garbage(out)
