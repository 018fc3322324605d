import signal
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.shards.claim import claimed, sigterm_as_interrupt


def test_folder_is_made_and_leftovers_of_a_killed_build_go(tmp_path: Path) -> None:
    (tmp_path / "out" / ".build").mkdir(parents=True)
    for name in (".a.tar.12.tmp", ".build/.a.json.12.tmp", "a.tar", ".mine"):
        (tmp_path / "out" / name).write_text("")
    with claimed(tmp_path / "out"):
        names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert names == {".build", "lock", "a.tar", ".mine"}


def test_two_builds_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    with (
        claimed(tmp_path),
        pytest.raises(UsageError, match="another build is writing there"),
        claimed(tmp_path),
    ):
        pass
    with claimed(tmp_path):  # free again
        pass


def test_out_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match=r"out: cannot write there .* Give --out a folder"), claimed(tmp_path / "out"):
        pass


def test_sigterm_is_an_interrupt_inside_and_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
