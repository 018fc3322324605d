"""`fourfold shortcuts`: a table for people, JSON for programs, errors that say what is allowed."""

import json

import pytest

from benchmarks.cli.app import run


@pytest.fixture
def config(small_shards, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(f"images: {small_shards(images=8)}\ncanvas_px: 32\nbatch_size: 4\ntasks: {{exemplar: {{}}}}\n")
    return str(path)


def test_table_has_a_row_for_every_shortcut(config, capsys):
    assert run(["shortcuts", config, "--samples", "4"]) == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["task", "exemplar", "exemplar"]
    assert "docs/shortcuts.md" in shown.err


def test_json_is_one_document(config, capsys):
    assert run(["shortcuts", config, "--samples", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_trained"] is False
    assert {one["verdict"] for one in found["findings"]} <= {"leaks", "above chance", "no leak"}


def test_a_task_that_the_configuration_lacks_is_a_usage_error(config, capsys):
    assert run(["shortcuts", config, "--tasks", "colorization"]) == 2
    assert "allowed here: exemplar" in capsys.readouterr().err


def test_a_name_is_that_of_a_pretraining_recipe(small_shards, capsys):
    options = ["--set", f"pipeline.images={small_shards(images=8)}", "--tasks", "exemplar", "--samples", "4"]
    assert run(["shortcuts", "small", *options]) == 0
    assert "exemplar" in capsys.readouterr().out


def test_an_unknown_name_lists_what_may_be_given(capsys):
    assert run(["shortcuts", "nosuch"]) == 2
    assert "the folder of a run, or one of: " in capsys.readouterr().err
