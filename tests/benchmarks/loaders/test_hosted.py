"""Loaders in processes of their own: what goes wrong there is a message here, and nothing is left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from benchmarks.loaders.host import MAX_PASSES
from benchmarks.loaders.hosted import HostedLoader, LoaderError
from benchmarks.loaders.registry import PEERS, Contender
from benchmarks.loaders.setting import Setting
from tests.made.loader_settings import made_setting

NAMES = ("Chatty", "Hanging", "absent")
ROOT = Path(__file__).resolve().parents[3]


def contender(name: str) -> Contender:
    return Contender(
        module="tests.made.planted_loaders", data="files", what=name, packages=(), opener=name, extra=PEERS
    )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return made_setting(tmp_path_factory.mktemp("hosted") / "data")


@pytest.fixture(scope="module")
def hosts(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, HostedLoader]]:
    """All started at once: most of the time goes into imports."""
    work = tmp_path_factory.mktemp("work")
    found = {
        name: HostedLoader(contender(name), setting, work=work / str(index), timeout_s=30)
        for index, name in enumerate(NAMES)
    }
    yield found
    for host in found.values():
        host.close()


def opened(hosts: dict[str, HostedLoader], setting: Setting, name: str) -> HostedLoader:
    hosts[name].ask("open", samples=str(setting.folder.parent))
    return hosts[name]


def test_a_loader_is_opened_checked_timed_and_ended(hosts: dict[str, HostedLoader], setting: Setting) -> None:
    host = opened(hosts, setting, "Chatty")
    assert host.ask("check")["differences"]["canvas"] == {"mean": 0, "sample": 0, "value": 0}
    answer = host.ask("time", is_cold=False, least_s=0.0)
    assert answer["num_passes"] == 1
    assert answer["resident_ratio"] == 1
    assert 0 < answer["seconds"] < 10
    assert host.ask("time", is_cold=False, least_s=60.0)["num_passes"] == MAX_PASSES
    assert "a word from its C code" in host._log.read_text()  # and not among the answers
    host.close()
    assert host._process.returncode == 0
    host.close()  # twice is once


def test_what_is_not_installed_says_what_to_install(hosts: dict[str, HostedLoader], setting: Setting) -> None:
    with pytest.raises(LoaderError) as caught:
        opened(hosts, setting, "absent")
    assert str(caught.value) == "not installed: pip install 'fourfold[peers]' (No module named 'ffcv')"


def test_a_loader_that_hangs_is_ended_with_its_workers(hosts: dict[str, HostedLoader], setting: Setting) -> None:
    host = opened(hosts, setting, "Hanging")
    host._timeout_s = 1
    with pytest.raises(LoaderError, match="check: no answer within 1 s"):
        host.ask("check")
    worker = int(re.findall(r"worker (\d+)", host._log.read_text())[0])
    assert psutil.pid_exists(worker)
    start_s = time.monotonic()
    host.close()
    assert time.monotonic() - start_s < 5
    wait_for(lambda: not alive(worker) and not alive(host._process.pid))


def test_a_loader_in_a_pass_ends_with_a_parent_that_was_killed(setting: Setting, tmp_path: Path) -> None:
    program = f"""
import json, sys, time
from pathlib import Path
from benchmarks.loaders.registry import Contender
from benchmarks.loaders.host import MAX_PASSES
from benchmarks.loaders.hosted import HostedLoader
from benchmarks.loaders.setting import Setting
contender, setting = Contender(**json.loads(sys.argv[1])), Setting.from_json(json.loads(sys.argv[2]))
host = HostedLoader(contender, setting, work=Path({str(tmp_path / "work")!r}), timeout_s=60)
host.ask("open", samples="")
print(host._process.pid, flush=True)
host.ask("check")
"""
    told = json.dumps(asdict(contender("Hanging"))), json.dumps(setting.to_json())
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", program, *told], stdout=subprocess.PIPE, env=environment)
    with parent:
        assert parent.stdout is not None
        host = int(parent.stdout.readline())
        wait_for(lambda: bool(psutil.Process(host).children()))
        worker = psutil.Process(host).children()[0].pid
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(host) and not alive(worker))


def alive(process: int) -> bool:
    """A zombie that nobody has waited for is dead."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(is_so: Callable[[], bool], within_s: float = 10) -> None:
    deadline_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)
