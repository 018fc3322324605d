"""The launcher: what hides a package of ours is one message; both ways to start are the same command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fourfold

ROOT = Path(__file__).resolve().parents[1]


def started(
    *arguments: str, folder: Path, path: str = str(ROOT), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", ["fourfold", "benchmarks"])
def test_both_modules_start_the_command(module: str, tmp_path: Path) -> None:
    done = started("-m", module, "shards", "info", "NOWHERE", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fourfold: NOWHERE: not a folder of shards")


@pytest.mark.parametrize("name", ["pipelines", "training", "benchmarks"])
@pytest.mark.parametrize("place", ["current folder", "PYTHONPATH"])
def test_a_folder_of_the_same_name_is_named_in_one_line(name: str, place: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    # Were it imported, its code would run.
    (tmp_path / name / "__init__.py").write_text("print('run')")
    in_variable = place == "PYTHONPATH"
    done = started(
        *("-m", "fourfold", "--version"),
        folder=tmp_path / "elsewhere" if in_variable else tmp_path,
        path=os.pathsep.join([str(tmp_path)] * in_variable + [str(ROOT)]),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"fourfold: {tmp_path / name} hides fourfold's own package")
    assert place in done.stderr


def test_a_folder_without_code_hides_nothing(tmp_path: Path) -> None:
    """`training/` with data in it is common; Python prefers a package, wherever on the path that is."""
    (tmp_path / "training").mkdir()
    done = started("-m", "fourfold", "--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_installation_with_a_part_missing_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fourfold, "OWN_FILES", {"no_such_package": "x.py"})
    with pytest.raises(SystemExit) as caught:
        fourfold.main()
    assert caught.value.code == 2
    assert "no_such_package is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fourfold sha", ["shards"]),
        ("fourfold shards ver", ["verify"]),
        ("fourfold bench pl", ["plan"]),
        ("fourfold bench run nat", ["natural7", "natural7-three-seeds"]),
        ("fourfold pretrain sm", ["small"]),
        ("fourfold shards build --config l", ["labelled-photos"]),
    ],
)
def test_bash_completes_commands_and_recipes_without_loading_torch(
    words: str, expected: list[str], tmp_path: Path
) -> None:
    program = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(f"{'torch' in sys.modules}"))
import fourfold
fourfold.main()
"""
    done = started(
        *("-c", program),
        folder=tmp_path,
        # What the script of `fourfold --show-completion bash` sets.
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
        _FOURFOLD_COMPLETE="complete_bash",
    )
    assert (done.returncode, done.stderr) == (0, "False")
    assert sorted(done.stdout.split()) == expected


def test_show_completion_prints_the_script(tmp_path: Path) -> None:
    done = started(
        "-m", "fourfold", "--show-completion", "bash", folder=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert "_FOURFOLD_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _fourfold_completion fourfold" in done.stdout
