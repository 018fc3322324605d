"""docs/loaders.md against the code and the record: options, loaders, tolerances, and every number of its tables."""

import json
import re
from pathlib import Path

from benchmarks.harness.page_cache import MAX_RESIDENT_RATIO
from benchmarks.loaders import CompareOptions
from benchmarks.loaders.agreement import TOLERANCE
from benchmarks.loaders.registry import CONTENDERS
from benchmarks.studies.compare_loaders import STUDY

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "loaders.md").read_text(encoding="utf-8")
RECORD = "benchmarks/records/loaders-2026-11-26.json"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_option_exists() -> None:
    shown = set(re.findall(r"--[a-z-]+", STUDY.parser().format_help()))
    of_profile = {"--loaders"}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) - of_profile <= shown


def test_every_loader_is_described() -> None:
    described = PAGE.partition("| loader | reads |")[2].partition("\n\n")[0]
    assert [cells(line)[0].removesuffix(" (the limit)") for line in described.splitlines()[2:]] == list(CONTENDERS)


def test_tolerances_and_defaults_are_those_of_the_code() -> None:
    assert f"| {TOLERANCE.mean} | {TOLERANCE.sample} | {TOLERANCE.value} |" in PAGE
    defaults = CompareOptions(shards=Path())
    assert defaults.warm_repeats == defaults.cold_repeats == 6
    assert f"(`timeout_s`, {defaults.timeout_s:.0f} s a step)" in PAGE
    assert f"at most {100 * MAX_RESIDENT_RATIO:.0f} %" in PAGE


def test_tables_are_those_of_the_record() -> None:
    assert f"(../{RECORD})" in PAGE
    record = json.loads((ROOT / RECORD).read_text(encoding="utf-8"))
    assert not record["environment"]["is_dirty"]
    tables = [part.partition("\n\n")[0] for part in PAGE.split("| loader | warm |")[1:]]
    assert len(tables) == len(record["results"]) == 2
    for table, results in zip(tables, record["results"].values(), strict=True):
        rows = [cells(line) for line in table.splitlines()[2:]]
        assert {row[0] for row in rows} == set(results["samples_per_s"]["warm"])
        for name, *shown in rows:
            expected = [text for cache in ("warm", "cold") for text in shown_of(results, cache, name)]
            assert shown == expected, name


def shown_of(results: dict[str, dict[str, dict[str, dict[str, float]]]], cache: str, name: str) -> list[str]:
    if name not in results["samples_per_s"][cache]:
        return ["", ""]
    rate, ratio = results["samples_per_s"][cache][name], results["ratio_to_limit"][cache].get(name)
    interval = f"({rate['ci95_low']:,.0f} to {rate['ci95_high']:,.0f})"
    return [f"{rate['median']:,.0f} {interval}", "1" if ratio is None else f"{ratio['median']:.2f}"]


def test_the_readme_links_here() -> None:
    assert "(docs/loaders.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
