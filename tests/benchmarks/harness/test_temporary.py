"""Temporary folders go: after the block, after an error, and after the process was killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.harness.temporary import short_parent, temporary_folder
from pipelines.base.errors import UsageError
from tests.made.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from benchmarks.harness.temporary import short_parent, temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("content")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_folder_is_there_in_the_block_and_gone_after_it(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "c").write_text("c")
    assert list(tmp_path.iterdir()) == []


def test_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with temporary_folder(tmp_path) as folder:
            (folder / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "expected"), [("/var/tmp", "/var/tmp"), ("/var/" + 40 * "x", "/tmp")])
def test_sockets_go_where_their_paths_are_short(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", name)
    assert short_parent() == Path(expected)


def test_two_at_a_time_are_two(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as one, temporary_folder(tmp_path) as other:
        assert one != other
    assert list(tmp_path.iterdir()) == []


def test_folder_is_gone_after_a_kill(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    with holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().decode().strip())
        assert (folder / "file").is_file()
        holder.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + PATIENCE_S
    while folder.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing: not a folder"), temporary_folder(tmp_path / "missing"):
        pass


def test_a_folder_that_takes_nothing_is_refused() -> None:
    proc = Path("/proc/self")
    if not proc.is_dir():
        pytest.skip("no /proc here")
    with pytest.raises(UsageError, match="/proc/self: cannot be written to"), temporary_folder(proc):
        pass
