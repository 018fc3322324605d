"""The command line: exit codes, one message instead of a traceback, and JSON where it is asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.cli import app as cli
from tests.made.patience import PATIENCE_S, seconds_here

ROOT = Path(__file__).resolve().parents[3]
MakeShards = Callable[..., Path]


def fourfold(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


def command(program: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / label / f"{index}.jpg"), pixels)
    return tmp_path / "photos"


@pytest.mark.parametrize("arguments", [[], ["shards"], ["bench"], ["--help"], ["pretrain", "--help"]])
def test_help_is_no_failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold(*arguments) == 0
    assert capsys.readouterr().out.startswith("Usage: fourfold")


@pytest.mark.parametrize(
    "arguments",
    [
        *("shards build", "shards adopt", "shards info", "shards verify", "shards merge", "shards stats"),
        *("bench run", "bench plan", "bench status", "bench report"),
        *("pretrain", "evaluate", "preview", "doctor", "demo", "profile"),
    ],
)
def test_every_command_shows_an_example(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold(*arguments.split(), "--help") == 0
    assert f"fourfold {arguments}" in capsys.readouterr().out.partition("Example")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold("--version") == 0
    assert capsys.readouterr().out.startswith("fourfold ")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["nope"], 2, ["nope", "fourfold --help"]),
        (["bench", "run"], 2, ["SUITE.yaml", "bench run --help"]),
        (["preview", "x", "--num-samples", "99"], 2, ["--num-samples", "16"]),
        (["shards", "info", "NOWHERE"], 2, ["no such folder", "shards build"]),
        (["shards", "verify", "NOWHERE"], 2, ["no such folder"]),
        (["shards", "stats", "NOWHERE"], 2, ["no such folder"]),
        (["preview", "NOWHERE", "--out", "sheet.png"], 2, ["no such folder"]),
        (["preview", "NOWHERE", "--out", "sheet.gif"], 2, ["sheet.gif", ".png"]),
        (["profile", "NOWHERE"], 2, ["NOWHERE", "a folder of shards", "shards build"]),
        (["profile", "NOWHERE.yaml"], 2, ["NOWHERE.yaml", "no such profile", "fast-gpu", "small"]),
        (["profile", "x", "--seconds", "0"], 2, ["--seconds", "0.5"]),
        (["bench", "run", "x", "--jobs", "some"], 2, ["--jobs", "integer"]),
        (["pretrain", "NOWHERE.yaml"], 2, ["NOWHERE.yaml", "no such pretraining", "small"]),
        (["bench", "plan", "NOWHERE"], 2, ["no such suite", "demo"]),
        (["evaluate", "run", "--with", "guessing", "--images", "x"], 2, ["guessing", "linear_probe"]),
        (["shards", "build", "NOWHERE", "--out", "x"], 2, ["NOWHERE", "no such file or folder"]),
        (["shards", "build", ".", "--config", "NOWHERE"], 2, ["NOWHERE", "no such shard settings", "labelled-photos"]),
        (["shards", "build", ".", "--out", "x", "--val", "sometimes"], 2, ["val", "sometimes", "every:N"]),
        (["shards", "build", ".", "--out", "x", "--set", "fps"], 2, ["--set fps", "NAME=VALUE"]),
    ],
)
def test_wrong_usage_is_one_message(
    arguments: list[str],
    exit_code: int,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fourfold(*arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fourfold: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert [word for word in words if word not in captured.err] == []
    assert list(tmp_path.iterdir()) == []


def test_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert fourfold("shards", "build", tmp_path / "empty", "--out", tmp_path / "x") == 2
    assert "no files found" in capsys.readouterr().err
    (tmp_path / "empty" / "notes.txt").write_text("words")
    assert fourfold("shards", "build", tmp_path / "empty", "--out", tmp_path / "x") == 2
    assert "1 files, but no image and no video found" in capsys.readouterr().err


def test_unknown_yaml_key_names_file_line_and_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# a run\ntrunk:\n  dept: 34\n")
    assert fourfold("pretrain", path, "--out", tmp_path / "run") == 2
    assert f"{path}:3: unknown key trunk.dept. Did you mean depth?" in capsys.readouterr().err


def test_override_of_an_unknown_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# a run\ntrunk: {depth: 10}\n")
    assert fourfold("pretrain", path, "--set", "trunk.widht=2", "--out", tmp_path / "run") == 2
    assert "Did you mean width?" in capsys.readouterr().err


def test_missing_shard_is_named(small_shards: MakeShards, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = small_shards(12)
    gone = sorted(folder.glob("*.tar"))[1]
    gone.unlink()
    assert fourfold("preview", folder, "--out", tmp_path / "sheet.png") == 1
    assert gone.name in capsys.readouterr().err
    assert fourfold("shards", "verify", folder) == 1
    assert f"{gone.name}: missing" in capsys.readouterr().out


def test_dali_asked_for_but_missing_names_the_extra(small_shards: MakeShards, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "# exemplar on DALI\n"
        f"pipeline: {{images: {small_shards(12)}, backend: dali, canvas_px: 64, tasks: {{exemplar: {{}}}}}}\n"
        "trunk: {depth: 10, width: 0.125}\nheads: {preset: small}\nbudget: {steps: 1}\n"
    )
    program = (
        "import sys\nsys.modules['nvidia.dali'] = None\n"
        "from benchmarks.cli import app as cli\nsys.exit(cli.run(['pretrain', *sys.argv[1:]]))"
    )
    process = command(program, config, "--out", tmp_path / "run")
    message = process.communicate()[1]
    assert process.returncode == 2
    assert "fourfold[cuda13]" in message
    assert "Traceback" not in message


def test_build_info_verify_stats(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", folder, "--val", "every:3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 12
    assert fourfold("shards", "info", folder, "--json") == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert {group["split"]: group["num_samples"] for group in groups} == {"train": 8, "val": 4}
    assert fourfold("shards", "info", folder) == 0
    assert "48 x 40" in capsys.readouterr().out
    assert fourfold("shards", "verify", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    assert fourfold("shards", "stats", folder) == 0
    assert (folder / "color_prior.json").is_file()


def test_json_is_the_only_output(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold("shards", "build", photos, "--out", tmp_path / "shards", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["labels"] == ["cat", "dog"]


def test_pretrain_evaluate_bench(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", shards, "--val", "every:3") == 0
    run_yaml, suite_yaml = tmp_path / "run.yaml", tmp_path / "suite.yaml"
    run_yaml.write_text(
        f"# small\npipeline: {{images: {shards}, canvas_px: 32, batch_size: 4, tasks: {{colorization: {{}}}}}}\n"
        "trunk: {depth: 10, width: 0.125}\nheads: {preset: small}\nbudget: {steps: 2}\nprecision: fp32\n"
    )
    assert fourfold("pretrain", run_yaml, "--out", tmp_path / "run") == 0
    probe = ["--set", "canvas_px=32", "--set", "labels_per_class=[]", "--set", "l2_grid=[1.0]"]
    capsys.readouterr()
    assert fourfold("evaluate", tmp_path / "run", "--images", shards, *probe, "--json") == 0
    assert 0 <= json.loads(capsys.readouterr().out)["top1_pct"] <= 100
    suite_yaml.write_text(
        f"# small\nname: small\nimages: {shards}\nbaselines: [pixel_floor]\ndepths: [10]\nseeds: [0]\n"
        "evaluations: {pixel_floor: {labels_per_class: []}}\n"
    )
    out = ["--out", tmp_path / "bench"]
    assert fourfold("bench", "plan", suite_yaml, *out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_finished"] == 0
    assert fourfold("bench", "run", suite_yaml, *out) == 0
    assert "pixel floor" in capsys.readouterr().out
    assert fourfold("bench", "status", suite_yaml, *out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["state"] == "finished"
    assert fourfold("bench", "report", suite_yaml, *out) == 0
    assert Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8").startswith("<!")


def test_bug_is_one_line_and_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("benchmarks.cli.doctor.examine", broken)
    monkeypatch.delenv("FOURFOLD_DEBUG", raising=False)
    assert fourfold("doctor") == 1
    assert capsys.readouterr().err.startswith("fourfold: ZeroDivisionError: by zero. This is a bug")
    monkeypatch.setenv("FOURFOLD_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        fourfold("doctor")


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "shards"), 1, "shards: Perm"),
    ],
)
def test_interrupts_and_system_errors(
    error: BaseException,
    exit_code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("benchmarks.cli.doctor.examine", fail)
    assert fourfold("doctor") == exit_code
    assert capsys.readouterr().err.startswith(f"fourfold: {message}")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_one_line(number: signal.Signals, exit_code: int) -> None:
    program = """
import sys, time
from benchmarks.cli import app as cli, doctor
def wait():
    print("ready", flush=True)
    time.sleep(60)
doctor.examine = wait
sys.argv = ["fourfold", "doctor"]
cli.main()
"""
    process = command(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start_s = time.monotonic()
    process.send_signal(number)
    message = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == exit_code
    assert message.count("\n") == 1
    assert time.monotonic() - start_s < seconds_here(10)


def test_reader_that_goes_away_is_no_error() -> None:
    program = (
        "import sys; from benchmarks.cli import app as cli, doctor\n"
        "doctor.show = lambda _: [print('x' * 1000) for _ in range(10000)]\n"
        "sys.argv = ['fourfold', 'doctor']\ncli.main()"
    )
    process = command(program)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=PATIENCE_S)
