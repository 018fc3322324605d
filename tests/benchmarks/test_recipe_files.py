"""Recipes by name: a file wins, then the packaged ones of the kinds asked for; else an error that lists their names."""

from pathlib import Path

import pytest

from benchmarks import recipe_files
from benchmarks.recipe_files import completing, find_recipe, recipe_names
from pipelines.base.errors import UsageError

YAML = Path(__file__).resolve().parents[2] / "yaml"


@pytest.mark.parametrize("kind", ["suites", "pretrain", "pipelines", "profiles", "shards"])
def test_every_file_of_the_yaml_folder_is_found_by_its_name(kind: recipe_files.RecipeKind) -> None:
    files = sorted((YAML / kind).glob("*.yaml"))
    assert files
    assert [find_recipe(file.stem, kind) for file in files] == files
    assert recipe_names(kind) == [file.stem for file in files]


def test_a_file_wins_over_a_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_recipe("demo", "suites") == YAML / "suites" / "demo.yaml"
    (tmp_path / "small").write_text("{}")
    assert find_recipe("small", "pretrain") == Path("small")


def test_of_equal_names_the_first_kind_wins() -> None:
    assert find_recipe("small", "pipelines", "pretrain") == YAML / "pipelines" / "small.yaml"
    assert find_recipe("small", "pretrain", "pipelines") == YAML / "pretrain" / "small.yaml"


def test_another_kinds_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        find_recipe("labelled-photos", "pretrain", or_give="a run folder")
    assert str(caught.value) == (
        "labelled-photos: no such pretraining. Give a YAML file, a run folder, or one of: paper, small."
    )


def test_a_wheel_reads_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, `yaml` beside the package is PyYAML; the recipes lie inside the package."""
    for place in ("yaml/suites/not-ours.yaml", "benchmarks/recipes/suites/ours.yaml"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    monkeypatch.setattr(recipe_files, "__file__", str(tmp_path / "benchmarks" / "recipe_files.py"))
    assert recipe_names("suites") == ["ours"]


def test_completion_gives_the_names_that_begin_so() -> None:
    assert completing("pretrain", "shards")("l") == ["labelled-photos"]
    assert completing("suites")("fast") == []
