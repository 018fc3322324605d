"""log.jsonl and TensorBoard curves of a run, and of a run that goes on."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.base.errors import FourfoldError
from training.journal import Journal, read_log


def test_lines_come_back(tmp_path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.log({"step": 1, "losses": {"exemplar": 0.5}, "lasso": {}})
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "losses": {"exemplar": 0.5}, "lasso": {}}]


def test_going_on_drops_what_came_after_the_checkpoint(tmp_path) -> None:
    with Journal(tmp_path, 0) as journal:
        for step in (2, 4, 6):
            journal.log({"step": step})
    with Journal(tmp_path, 4) as journal:
        journal.log({"step": 5})
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [2, 4, 5]


def test_a_line_cut_short_is_left_out(tmp_path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]


def test_a_full_disk_is_one_message(tmp_path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(FourfoldError, match=r"cannot write the log \(No space left on device\)\. Free some space"),
        Journal(tmp_path, 0) as journal,
    ):
        journal.log({"step": 1})


def test_no_log_is_no_lines(tmp_path) -> None:
    assert read_log(tmp_path / "log.jsonl") == []


def test_curves_are_named_by_their_path(tmp_path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.log({"step": 3, "losses": {"exemplar": 0.5}, "lasso": {"exemplar": [0.6, 0.8]}})
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert set(curves.Tags()["scalars"]) == {"losses/exemplar", "lasso/exemplar/0", "lasso/exemplar/1"}
    assert [(event.step, event.value) for event in curves.Scalars("losses/exemplar")] == [(3, 0.5)]


def test_a_rank_that_is_off_writes_nothing(tmp_path) -> None:
    with Journal(tmp_path, 0, is_on=False) as journal:
        journal.log({"step": 1})
    assert list(tmp_path.iterdir()) == []
