"""Child processes: what goes wrong there is a message here, and nothing is left, also after SIGKILL."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.child import ROOT, Child, ChildError
from tests.made.patience import PATIENCE_S, seconds_here, wait_until

TARGET = "tests.made.child_services:Service"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("child") / "one"
    given = {"OMP_NUM_THREADS": "1"}
    with Child(TARGET, {"greeting": "good day"}, folder=folder, timeout_s=60, environment=given) as opened:
        yield opened


def test_a_request_calls_a_method_in_another_process(child: Child) -> None:
    answer = child.ask("greet", name="reader")
    assert answer["said"] == "good day reader"
    assert answer["process"] == child.process.pid != os.getpid()


@pytest.mark.parametrize(
    ("kind", "message", "is_missing"),
    [
        ("data", "no such", False),
        ("value", "ValueError: no such", False),
        ("missing", "no such", True),
    ],
)
def test_an_error_is_a_message_and_the_child_stays(child: Child, kind: str, message: str, is_missing: bool) -> None:
    with pytest.raises(ChildError) as caught:
        child.ask("fail", kind=kind)
    assert (str(caught.value), caught.value.is_missing) == (message, is_missing)
    assert child.ask("greet", name="again")["said"] == "good day again"


def test_its_environment_is_ours_and_temporary_files_go_into_its_folder(child: Child) -> None:
    assert child.ask("environment", name="TMPDIR")["value"].endswith("one/t")
    assert child.ask("environment", name="OMP_NUM_THREADS")["value"] == "1"


def test_closed_it_ends_by_itself(tmp_path: Path) -> None:
    child = Child(TARGET, {"greeting": "hello"}, folder=tmp_path / "c", timeout_s=PATIENCE_S)
    child.ask("greet", name="x")
    child.close()
    assert child.process.returncode == 0
    assert (tmp_path / "c" / "log.txt").read_text().splitlines()[-1] == "closed"
    child.close()  # twice is once


def test_a_child_that_died_says_its_last_words(tmp_path: Path) -> None:
    with Child(TARGET, {"greeting": ""}, folder=tmp_path / "c", timeout_s=PATIENCE_S) as child:
        for _ in range(2):
            with pytest.raises(ChildError, match=r"its process ended \(exit code 7\): out of luck"):
                child.ask("die")


def test_a_child_that_hangs_is_ended_with_its_workers(tmp_path: Path) -> None:
    child = Child(TARGET, {"greeting": ""}, folder=tmp_path / "c", timeout_s=PATIENCE_S)
    child.ask("greet", name="x")
    child._timeout_s = 1
    with pytest.raises(ChildError, match="hang: no answer within 1 s"):
        child.ask("hang")
    worker = int(re.findall(r"worker (\d+)", (tmp_path / "c" / "log.txt").read_text())[0])
    assert alive(worker)
    start_s = time.monotonic()
    child.close()
    assert time.monotonic() - start_s < seconds_here(5)
    wait_until(lambda: not alive(worker) and not alive(child.process.pid))


HOLD = f"""
import sys
from pathlib import Path
from benchmarks.harness.child import Child
from benchmarks.harness.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    child = Child({TARGET!r}, {{"greeting": ""}}, folder=folder / "c", timeout_s=60)
    child.ask("greet", name="x")
    print(child.process.pid, flush=True)
    child.ask("hang")
"""


def test_a_parent_that_is_killed_leaves_no_folder_and_no_process(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(lambda: bool(psutil.Process(child).children()))
        worker = psutil.Process(child).children()[0].pid
        assert len(list(tmp_path.iterdir())) == 1
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(child) and not alive(worker) and not list(tmp_path.iterdir()))


def alive(process: int) -> bool:
    """A zombie that nobody has waited for is dead."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
