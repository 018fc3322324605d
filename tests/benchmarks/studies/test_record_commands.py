"""Commands of committed records still parse, and modules named in the docs can be run."""

import argparse
import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.suite_config import load_suite

ROOT = Path(__file__).resolve().parents[3]
RECORDS = sorted((ROOT / "benchmarks" / "records").glob("*.json"))
WITHOUT_COMMAND = {"shards-build-2026-11-25"}
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "records" / "NOTES.md", *sorted((ROOT / "docs").glob("*.md"))]


class Parsed(BaseException):
    """Raised in the place of running; no handler of errors stops it."""


def command_of(path: Path) -> str | None:
    record = json.loads(path.read_text(encoding="utf-8"))
    found: str | None = record.get("command") or record.get("config", {}).get("command")
    return found


@pytest.fixture
def only_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments: Any, **options: Any) -> argparse.Namespace:
        parse(self, *arguments, **options)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.usefixtures("only_parsing")
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_command_of_a_record_parses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_of(path)
    if command is None:
        assert path.stem in WITHOUT_COMMAND
        return
    words = shlex.split(command)
    if words[:3] == ["fourfold", "bench", "run"]:
        given = list(zip(words[4::2], words[5::2], strict=True))
        assert {name for name, _ in given} <= {"--set", "--jobs"}
        settings = [value for name, value in given if name == "--set"]
        assert load_suite(ROOT / "yaml" / "suites" / f"{words[3]}.yaml", settings).config.depths
        return
    assert words[:2] == ["python", "-m"]
    module = importlib.import_module(words[2])
    main = module.STUDY.main if hasattr(module, "STUDY") else module.main
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(Parsed):
        main()


@pytest.mark.usefixtures("only_parsing")
def test_an_option_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.studies.throughput.images import STUDY

    monkeypatch.setattr(sys, "argv", ["images", "--imagez", "4"])
    with pytest.raises(SystemExit, match="2"):
        STUDY.main()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_named_in_the_docs_can_be_run(page: Path) -> None:
    for name in re.findall(r"python -m (benchmarks[\w.]*)", page.read_text(encoding="utf-8")):
        source = ROOT / (name.rstrip(".").replace(".", "/") + ".py")
        package = ROOT / name.rstrip(".").replace(".", "/") / "__main__.py"
        assert package.is_file() or '__name__ == "__main__"' in source.read_text(encoding="utf-8"), name
