"""A loader in its child process: opened, checked, timed; what is wrong with it is a message."""

from collections.abc import Iterator

import pytest

from benchmarks.harness.child import Child, ChildError
from benchmarks.loaders.compare import open_child
from benchmarks.loaders.host import MAX_PASSES
from benchmarks.loaders.registry import PEERS, Contender
from benchmarks.loaders.setting import Setting
from tests.made.loader_settings import made_setting
from tests.made.patience import PATIENCE_S

NAMES = ("Chatty", "absent")


def contender(name: str) -> Contender:
    return Contender(
        module="tests.made.planted_loaders", data="files", what=name, packages=(), opener=name, extra=PEERS
    )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return made_setting(tmp_path_factory.mktemp("hosted") / "data")


@pytest.fixture(scope="module")
def children(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    """All started at once: most of the time goes into imports."""
    work = tmp_path_factory.mktemp("work")
    found = {
        name: open_child(contender(name), setting, work=work / str(index), timeout_s=PATIENCE_S)
        for index, name in enumerate(NAMES)
    }
    yield found
    for child in found.values():
        child.close()


def test_a_loader_is_opened_checked_and_timed(children: dict[str, Child], setting: Setting) -> None:
    child = children["Chatty"]
    child.ask("open", samples=str(setting.folder.parent))
    assert child.ask("check")["differences"] == {"mean": 0, "sample": 0, "value": 0}
    answer = child.ask("time", is_cold=False, least_s=0.0)
    assert answer["num_passes"] == 1
    assert answer["resident_ratio"] == 1
    assert 0 < answer["seconds"] < 10
    assert child.ask("time", is_cold=False, least_s=60.0)["num_passes"] == MAX_PASSES


def test_what_is_not_installed_is_said_to_be_missing(children: dict[str, Child], setting: Setting) -> None:
    with pytest.raises(ChildError, match="No module named 'ffcv'") as caught:
        children["absent"].ask("open", samples=str(setting.folder.parent))
    assert caught.value.is_missing
