import json
from pathlib import Path

import pytest

from benchmarks.cli.app import run
from tests.made.foreign_tars import photo, write_tar, write_tars


def fourfold(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def test_adopt_then_info_and_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tars, out = write_tars(tmp_path / "tars", "timm"), tmp_path / "out"
    assert fourfold("shards", "adopt", *tars, "--out", out, "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "train 12" in shown.out
    assert "5 labels" in shown.out or "0, 1, 2, 3, 4" in shown.out
    assert fourfold("shards", "adopt", tmp_path / "tars", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_reused"] == 3
    assert fourfold("shards", "info", out) == 0
    assert fourfold("preview", out, "--out", tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_what_is_left_out_is_said_in_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [("a.jpg", photo(0)), ("a.cls", b"1"), ("b.jpg", photo(1)), ("c.jpg", b"x" * 99)]
    tars = [write_tar(tmp_path / f"{name}.tar", members) for name in ("one", "two")]
    assert fourfold("shards", "adopt", *tars, "--out", tmp_path / "out", "--workers", 1) == 0
    shown = capsys.readouterr().err
    assert "note: 2 images are left out; rejects.jsonl there says why" in shown
    assert "note: 2 of 4 images have no label" in shown
    assert "note: 2 keys occur in several tars" in shown


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        (["--check", "half"], 2, "--check half; allowed: header, decode"),
        (["--labels", "some"], 2, "--labels some; allowed: auto, off"),
        (["--split", "a/b"], 2, "split 'a/b': need letters"),
        (["--max-reject-ratio", "0"], 1, "1 of 2 images cannot be used"),
    ],
)
def test_wrong_options_and_bad_tars_are_one_message(
    tmp_path: Path, options: list[str], exit_code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = write_tar(tmp_path / "t.tar", [("a.jpg", photo(0)), ("c.jpg", b"x" * 99)])
    assert fourfold("shards", "adopt", tar, "--out", tmp_path / "out", "--workers", 1, *options) == exit_code
    assert message in capsys.readouterr().err
