import pytest

from pipelines.base import progress
from pipelines.base.progress import progress_bar, quiet_progress


def test_last_line_says_how_much_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("packing", total=5, unit="files") as bar:
        bar.show(loss=0.25, rejects=2)
        for _ in range(5):
            bar.advance()
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("packing: 5/5 files, ")
    assert found.err.endswith("files/s loss 0.25 rejects 2\n")


def test_long_work_writes_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    with progress_bar("packing", total=None, unit="files") as bar:
        for _ in range(30):
            now_s += 1.0
            bar.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"packing: {count} files, 2 files/s" for count in (20, 40, 60, 60)]


def test_failure_writes_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), progress_bar("packing", total=5, unit="files"):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_quiet_is_silent_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_progress(), progress_bar("packing", total=1, unit="files") as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
    with progress_bar("packing", total=1, unit="files"):
        pass
    assert "packing: 0/1 files" in capsys.readouterr().err


def test_bytes_time_left_and_what_was_done_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    with progress_bar("packing", total=10_000, unit="files") as bar:
        bar.skip(2000)
        now_s = 10.0
        bar.advance(1000, 50_000_000)
        now_s = 100.0
        bar.advance(7000, 450_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "packing: 3000/10000 files, 100 files/s, 5 MB/s, 0:01:10 left",
        "packing: 10000/10000 files, 80 files/s, 5 MB/s",
        "packing: 10000/10000 files, 80 files/s, 5 MB/s",
    ]


def test_before_there_is_a_rate_no_time_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    with progress_bar("packing", total=10, unit="files") as bar:
        now_s = 20.0
        bar.skip(5)
    assert capsys.readouterr().err.splitlines()[0] == "packing: 5/10 files, 0 files/s"
