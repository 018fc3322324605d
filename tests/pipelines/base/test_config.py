from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from pipelines.base.config import Config, GrownConfig, apply_overrides, load_config, read_yaml, validate
from pipelines.base.errors import UsageError


class Inner(Config):
    depth: int = Field(default=18, ge=10)
    norm: str = "shared"


class Outer(Config):
    trunk: Inner = Inner()
    maybe: Inner | None = None
    steps: int


def write(folder: Path, text: str) -> Path:
    (folder / "run.yaml").write_text(text)
    return folder / "run.yaml"


def test_yaml_states_only_what_differs(tmp_path: Path) -> None:
    config = load_config(Outer, write(tmp_path, "trunk:\n  depth: 34\nsteps: 5\n"))
    assert (config.trunk.depth, config.trunk.norm, config.steps, config.maybe) == (34, "shared", 5, None)


def test_configs_are_frozen(tmp_path: Path) -> None:
    config = load_config(Outer, write(tmp_path, "steps: 5\n"))
    with pytest.raises(ValidationError):
        config.steps = 6  # type: ignore[misc]


def test_unknown_key_names_line_and_nearest_legal_key(tmp_path: Path) -> None:
    path = write(tmp_path, "# comment\nsteps: 5\ntrunk:\n  norm: shared\n  depht: 34\n")
    with pytest.raises(
        UsageError, match=r"run\.yaml:5: unknown key trunk\.depht\. Did you mean depth\? Allowed here: depth"
    ):
        load_config(Outer, path)


def test_unknown_key_in_an_optional_config_is_explained_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.yaml:3: unknown key maybe\.nrom\. Did you mean norm\?"):
        load_config(Outer, write(tmp_path, "steps: 1\nmaybe:\n  nrom: x\n"))


def test_wrong_value_is_shown_with_its_rule(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.yaml:2: trunk\.depth = 3: .*greater than or equal to 10"):
        load_config(Outer, write(tmp_path, "trunk:\n  depth: 3\nsteps: 1\n"))


def test_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.yaml: steps: Field required"):
        load_config(Outer, write(tmp_path, "trunk: {}\n"))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(Outer, write(tmp_path, "trunk: {depth: x}\nstep: 1\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1\n", "holds list; need a mapping"), ("", "holds NoneType"), ("\x00", "YAML")],
)
def test_file_that_is_no_mapping(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_yaml(write(tmp_path, text))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.yaml: cannot read it \(No such file"):
        read_yaml(tmp_path / "no.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="cannot read it"):
        read_yaml(tmp_path / "bytes.yaml")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml(write(tmp_path, "a: !!python/object/apply:os.system ['true']\n"))


def test_lines_of_keys_and_list_items(tmp_path: Path) -> None:
    _, lines = read_yaml(write(tmp_path, "a:\n  - x\n  - b: 1\n\nc: 2\n"))
    assert lines == {("a",): 1, ("a", 0): 2, ("a", 1): 3, ("a", 1, "b"): 3, ("c",): 5}


def test_overrides_reach_into_mappings_and_are_read_as_yaml() -> None:
    before = {"trunk": {"depth": 18}, "list": [1]}
    after = apply_overrides(before, ["trunk.depth=34", "new.inner=[1, 2]", "lr=0.5", "name=a=b", "empty="])
    assert after == {
        "trunk": {"depth": 34},
        "list": [1],
        "new": {"inner": [1, 2]},
        "lr": 0.5,
        "name": "a=b",
        "empty": None,
    }
    assert before == {"trunk": {"depth": 18}, "list": [1]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", r"--set steps: need NAME=VALUE"),
        ("=3", "need NAME=VALUE"),
        ("steps.inner=3", "steps holds 5, not a mapping"),
        ("a=[1", r"--set a=\[1"),
    ],
)
def test_wrong_override(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_overrides({"steps": 5}, [override])


def test_validate_without_a_file_names_the_source() -> None:
    with pytest.raises(UsageError, match=r"^--set: unknown key stepps\. Did you mean steps\?"):
        validate(Outer, {"steps": 1, "stepps": 2}, source="--set")


class Grown(GrownConfig):
    later_options = frozenset({"added", "listed"})
    first: int = 1
    added: int = 2
    listed: tuple[int, ...] = (1, 2)


def test_later_options_are_written_down_only_where_they_are_used() -> None:
    assert Grown().model_dump() == {"first": 1}
    assert Grown(added=2, listed=(1, 2)).model_dump(mode="json") == {"first": 1}
    assert Grown(added=3).model_dump(mode="json", exclude={"first"}) == {"added": 3}
    assert Grown.model_validate(Grown(listed=(3,)).model_dump(mode="json")) == Grown(listed=(3,))
