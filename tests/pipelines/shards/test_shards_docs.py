"""docs/shards.md against the code: options, settings and columns that it names exist, and its columns are all."""

import re
from pathlib import Path

import pytest

from benchmarks.cli import app as cli
from pipelines.shards.format.index import VERSION
from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.sources.items import IMAGE_SUFFIXES
from pipelines.shards.sources.lists import LIST_SUFFIXES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "shards.md").read_text(encoding="utf-8")


def test_every_option_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("build", "adopt", "info", "verify", "merge", "stats"):
        assert cli.run(["shards", name, "--help"]) == 0
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= shown


def test_every_setting_exists() -> None:
    named = set(re.findall(r"--set ([a-z_]+)=", PAGE)) | set(re.findall(r"`(max_\w+|\w+_threshold|image_\w+)", PAGE))
    assert named <= set(BuildConfig.model_fields)


def test_defaults_are_those_of_the_code() -> None:
    defaults = {name: field.default for name, field in BuildConfig.model_fields.items()}
    assert f"`--samples-per-shard` ({defaults['samples_per_shard']})" in PAGE
    assert f"`max_shard_mib` ({defaults['max_shard_mib']:g})" in PAGE
    assert f"`image_quality` ({defaults['image_quality']})" in PAGE
    assert f"`--check {defaults['check']}` (default)" in PAGE


def test_columns_are_those_of_the_schema() -> None:
    table = PAGE.partition("| column of `samples.arrow`")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \| (\w+) \|", table, re.MULTILINE)
    found = [(name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]
    types = {"double": "float64"}
    assert found == [(field.name, types.get(str(field.type), str(field.type))) for field in SAMPLE_SCHEMA]


def test_lists_and_index_are_named() -> None:
    assert [suffix for suffix in sorted(LIST_SUFFIXES) if f"`{suffix}`" not in PAGE] == []
    assert f"wds2idx {VERSION}" in PAGE
    assert {".bmp", ".tif"} <= IMAGE_SUFFIXES


def test_links_and_files_exist() -> None:
    assert "(docs/shards.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    for path in ("pipelines/shards/making/build_config.py", "yaml/shards", "benchmarks/records"):
        assert f"`{path}" in PAGE
        assert (ROOT / path).exists()
