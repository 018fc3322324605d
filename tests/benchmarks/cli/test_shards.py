"""`fourfold shards` as a user types it: options reach the build, files and options mix, wrong ones are one message."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.cli import app as cli
from pipelines.base.config import load_config, read_yaml
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.making.build_config import BuildConfig
from tests.made.media import gray_frames, write_image, write_video

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "yaml" / "shards").glob("*.yaml"))
MakeShards = Callable[..., Path]


def fourfold(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index in range(12):
        write_image(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index:02d}.jpg", index)
    return tmp_path / "photos"


def test_dry_run_says_what_would_come_of_it(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", out, "--val", "every:3", "--dry-run", "--ranks", "2x1") == 0
    captured = capsys.readouterr()
    assert not out.exists()
    assert f"planned for {out}; nothing is written there" in captured.out
    assert "cat 6, dog 6" in captured.out
    assert "12 images in" in captured.out
    assert "warning: train images: about 8 samples are few for 2 readers" in captured.err
    assert "warning: images of 64 x 48 px (median)" in captured.err


def test_dry_run_as_json_is_one_document(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold("shards", "build", photos, "--out", tmp_path / "shards", "--dry-run", "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert found["groups"][0]["num_samples"] == 12
    assert found["trials"][0]["num_items"] == 12
    assert found["reading"]["cache"] in ("cold", "warm")
    assert isinstance(found["warnings"], list)


def test_options_reach_the_build(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = [60 + 12 * (index % 10) for index in range(32)]
    write_video(tmp_path / "videos" / "a.mp4", gray_frames(levels, 96, 64))
    options = ["--short-side", "32", "--check", "header", "--samples-per-shard", "5", "--workers", "1"]
    options += ["--fps", "5", "--num-frames", "4", "--clip-short-side", "32", "--codec", "vp9", "--engine", "local"]
    options += ["--set", "cut_threshold=null", "--max-reject-ratio", "0.1"]
    out = tmp_path / "shards"
    assert fourfold("shards", "build", photos, tmp_path / "videos", "--out", out, *options, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_images"], summary["num_clips"], summary["shards"]) == (12, 4, 4)
    images, clips = load_manifest(out).select("image", "train"), load_manifest(out).select("clip", "train")
    assert set(images.height.tolist()) == set(clips.height.tolist()) == {32}
    assert (set(clips.num_frames.tolist()), set(clips.fps.tolist())) == ({4}, {5.0})
    assert fourfold("shards", "info", out) == 0
    assert "vp9" in capsys.readouterr().out


def test_file_then_options_then_set(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "build.yaml"
    config.write_text(f"sources: [{photos}]\nval: every:3\nsamples_per_shard: 3\nlabels: 'off'\n")
    arguments = [
        "--out",
        tmp_path / "shards",
        "--val",
        "every:4",
        "--set",
        "samples_per_shard=6",
        "--dry-run",
        "--json",
    ]
    assert fourfold("shards", "build", "--config", config, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == []
    assert [(group["num_samples"], group["num_shards"]) for group in found["groups"]] == [(9, 2), (3, 1)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x"], ["no source given", "sources"]),
        (["photos"], ["no --out DIR given"]),
        (["photos", "--out", "x", "--codec", "h264"], ["codec = 'h264'", "'mjpeg' or 'vp9'"]),
        (["photos", "--out", "x", "--check", "no"], ["check = 'no'", "'header' or 'decode'"]),
        (["photos", "--out", "x", "--fps", "0"], ["fps = 0", "greater than"]),
        (["photos", "--out", "x", "--workers", "-1"], ["num_workers = -1"]),
        (["photos", "--out", "x", "--ranks", "lots", "--dry-run"], ["--ranks lots", "8x4"]),
        (["photos", "--out", "x", "--set", "shufle=false"], ["unknown key shufle", "Did you mean shuffle?"]),
        (["photos", "--out", "x", "--config", "none.yaml"], ["none.yaml: no such shard settings"]),
        (["photos", "--out", "x", "--config", "bad.yaml"], ["bad.yaml:2: unknown key vall. Did you mean val?"]),
        (["photos", "--out", "x", "--dry-run", "--engine", "slurm"], ["engine = 'slurm'", "'ray'"]),
    ],
)
def test_wrong_options_are_one_message(
    arguments: list[str],
    words: list[str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("# settings\nvall: none\n")
    assert fourfold("shards", "build", *arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert [word for word in words if word not in captured.err] == []
    assert not Path("x").exists()


def test_summary_has_rates(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", out) == 0
    text = capsys.readouterr().out
    assert " samples/s, " in text
    assert " MB/s" in text
    assert fourfold("shards", "build", photos, "--out", out) == 0
    text = capsys.readouterr().out
    assert "reused         1" in text
    assert "MB/s" not in text


def test_overwrite_is_asked_for(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", out) == 0
    assert fourfold("shards", "build", photos, "--out", out, "--val", "every:3") == 2
    assert "another folder" in capsys.readouterr().err
    assert fourfold("shards", "build", photos, "--out", out, "--val", "every:3", "--overwrite") == 0


def test_too_many_rejects_fail(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "cat" / "bad.jpg").write_bytes(b"not a picture")
    assert fourfold("shards", "build", photos, "--out", tmp_path / "shards", "--max-reject-ratio", "0.01") == 1
    assert "bad.jpg" in capsys.readouterr().err


def test_verify_decodes_and_finds_damage(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert fourfold("shards", "build", photos, "--out", out) == 0
    assert fourfold("shards", "verify", out, "--decode", "--workers", "1") == 0
    assert "every sample decodes" in capsys.readouterr().out
    tar = out / "train-images-000000.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 255
    tar.write_bytes(content)
    assert fourfold("shards", "verify", out, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["is_whole"]
    assert tar.name in found["problems"][0]


def test_merge_joins_and_says_how(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("cat", "dog"):
        assert fourfold("shards", "build", photos / label, "--out", tmp_path / label) == 0
    capsys.readouterr()
    both = [tmp_path / "cat", tmp_path / "dog"]
    assert fourfold("shards", "merge", *both, "--out", tmp_path / "all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 12
    assert fourfold("shards", "merge", *both, "--out", tmp_path / "prefixed", "--prefix-keys") == 0
    assert "images" in capsys.readouterr().out
    assert {key.partition("/")[0] for key in load_manifest(tmp_path / "prefixed").select("image", "train").keys} == {
        "cat",
        "dog",
    }
    assert fourfold("shards", "merge", both[0], "--out", tmp_path / "x") == 2


def test_stats_of_images_with_and_without_colors(small_shards: MakeShards, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_shards(12)
    assert fourfold("shards", "stats", folder, "--no-colors") == 0
    assert "width, px" in capsys.readouterr().out
    assert not (folder / "color_prior.json").exists()
    assert fourfold("shards", "stats", folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["colors"]["num_images"] == 12
    assert (folder / "color_prior.json").is_file()


def test_stats_of_clips_need_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = [60 + 12 * (index % 10) for index in range(32)]
    write_video(tmp_path / "videos" / "a.mp4", gray_frames(levels))
    out = tmp_path / "shards"
    assert fourfold("shards", "build", tmp_path / "videos", "--out", out, "--set", "cut_threshold=null") == 0
    capsys.readouterr()
    assert fourfold("shards", "stats", out) == 0
    captured = capsys.readouterr()
    assert "train clips: 100.0 % of 3 near static (below 0.3)" in captured.out  # even gray, which counts as no motion
    assert fourfold("shards", "stats", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["colors"] is None


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_is(path: Path) -> None:
    assert load_config(BuildConfig, path, ["sources=[photos]", "out=shards"])
    settings, _ = read_yaml(path)
    assert settings.keys().isdisjoint({"sources", "out"})
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"--config {path.stem} " in header
    assert "machine:" in header
    assert "wall time:" in header


def keys_by_split(out: Path) -> dict[str, set[str]]:
    manifest = load_manifest(out)
    splits = {shard.split for shard in manifest.shards}
    return {split: set(manifest.select("image", split).keys) for split in splits}


def test_train_and_test_folders_build_with_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(8):
        write_image(tmp_path / "in" / ("train", "test")[index % 2] / ("cat", "dog")[index // 4] / f"{index}.jpg", index)
    assert fourfold("shards", "build", tmp_path / "in", "--out", tmp_path / "out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["labels"], summary["splits"]) == (["cat", "dog"], {"train": 4, "test": 4})
    assert summary["warnings"] == []
    assert {key.split("/")[0] for key in keys_by_split(tmp_path / "out")["test"]} == {"test"}
    # Train has no val beside it, so the rule takes one from it; test stays whole.
    assert fourfold("shards", "build", tmp_path / "in", "--out", tmp_path / "with_val", "--val", "every:2") == 0
    assert {split: len(keys) for split, keys in keys_by_split(tmp_path / "with_val").items()} == {
        "train": 2,
        "val": 2,
        "test": 4,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["--split", "train={}/a", "--split", "val={}/b"],
        ["--split", "train={}/a", "val={}/b"],
        ["train={}/a", "val={}/b"],
    ],
)
def test_splits_by_source(tmp_path: Path, arguments: list[str]) -> None:
    for index in range(6):
        write_image(tmp_path / ("a", "b")[index // 4] / f"{index}.jpg", index)
    given = [one.format(tmp_path) for one in arguments]
    assert fourfold("shards", "build", *given, "--out", tmp_path / "out") == 0
    assert keys_by_split(tmp_path / "out") == {"train": {"0", "1", "2", "3"}, "val": {"4", "5"}}


def test_a_name_with_an_equals_sign_that_exists_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "split=val" / "a.jpg")
    assert fourfold("shards", "build", "split=val", "--out", "out") == 0
    assert keys_by_split(tmp_path / "out") == {"train": {"a"}}


def test_wrong_split_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fourfold("shards", "build", "--split", "photos", "--out", tmp_path / "out") == 2
    assert "need NAME=SOURCE" in capsys.readouterr().err
    assert fourfold("shards", "build", "--split", "nan=photos", "--out", tmp_path / "out") == 2
    assert "no name of a split" in capsys.readouterr().err


def test_what_is_left_out_is_one_line_each(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.avif", "00001.MTS", "more.zip", "notes.txt"):
        (photos / name).write_bytes(b"x")
    write_image(photos / "stray.jpg")
    (photos / "cat" / "bad.jpg").write_bytes(b"no image")
    for more in (["--dry-run"], []):
        assert fourfold("shards", "build", photos, "--out", tmp_path / "out", *more) == 0
        captured = capsys.readouterr()
        warnings = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
        (ignored,) = [line for line in warnings if "left out" in line]
        assert [
            name for name in ("a.heic", "b.avif", "00001.MTS", "more.zip", "notes.txt") if name not in ignored
        ] == []
        assert [line for line in warnings if "1 of 14 images have no label, for example stray.jpg" in line]
    assert "rows           19 read = 13 images + 0 videos + 1 rejects + 5 ignored" in captured.out


@pytest.mark.parametrize("word", ["off", "no", "Off", "false"])
def test_labels_off_as_documented(photos: Path, tmp_path: Path, word: str) -> None:
    assert fourfold("shards", "build", photos, "--out", tmp_path / "out", "--set", f"labels={word}") == 0
    assert load_manifest(tmp_path / "out").labels == ()


def test_a_home_in_options_and_files(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text(f"sources: [~/{photos.name}]\n")
    assert fourfold("shards", "build", "--config=~/c.yaml", "--out=~/out") == 0
    assert load_manifest(tmp_path / "out").num_samples == 12
