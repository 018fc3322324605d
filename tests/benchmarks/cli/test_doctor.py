"""Doctor: what is missing is said, with what to do, and decides the exit code."""

import json
import platform
from pathlib import Path

import pytest

from benchmarks.cli import app as cli
from benchmarks.cli import doctor
from benchmarks.cli.requirements import extras, hard_requirements

ROOT = Path(__file__).resolve().parents[3]


def by_name(diagnosis: doctor.Diagnosis) -> dict[str, doctor.Check]:
    return {check.name: check for check in diagnosis.checks}


def test_this_machine_is_usable() -> None:
    diagnosis = doctor.examine()
    checks = by_name(diagnosis)
    assert diagnosis.is_usable
    assert checks["python"].found == platform.python_version()
    assert {"torch", "CPU", "memory", "disk", "clip encoders", "video decoders", "optical flow", "DALI"} <= set(checks)
    assert {"vp9", "mjpeg"} == set(checks["clip encoders"].found.split(", "))
    assert set(diagnosis.will_use) == {"device", "images", "clips", "decoding threads", "precision"}


def test_every_hard_dependency_is_looked_for_and_nothing_else_is_required() -> None:
    """Against pyproject.toml read here by another way than the doctor's."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    required = [line.strip(' ",').split(">=")[0] for line in block.strip().splitlines()]
    assert len(required) > 15
    assert [check.name for check in doctor._packages()] == ["python", *required]


def test_it_says_what_kornia_is_for() -> None:
    check = next(check for check in doctor._packages() if check.name == "kornia")
    assert check.found.endswith(", for motion masks of clips on a GPU")


def test_every_extra_is_listed_as_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(doctor.EXTRAS_FOR) == set(extras()) - {"cuda12", "cuda13", "dev"}
    hard = {needed.name for needed in hard_requirements()}
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: real(name) if name in hard else None)
    diagnosis = doctor.examine()
    assert diagnosis.is_usable
    check = by_name(diagnosis)["extra ray"]
    assert check.status == "optional"
    assert "pip install 'fourfold[ray]'" in check.found


@pytest.mark.parametrize(("version", "fix"), [(None, "pip install 'timm"), ("0.9.2", "pip install --upgrade 'timm")])
def test_missing_or_old_package_is_required(
    version: str | None, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: version if name == "timm" else real(name))
    check = by_name(doctor.examine())["timm"]
    assert check.status == "missing"
    assert str(check.fix).startswith(fix)
    assert cli.run(["doctor"]) == 1
    assert fix in capsys.readouterr().out


def test_missing_dali_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._has_module
    monkeypatch.setattr(doctor, "_has_module", lambda name: name != "nvidia.dali" and real(name))
    diagnosis = doctor.examine()
    check = by_name(diagnosis)["DALI"]
    assert check.status == "note"
    assert "fourfold[cuda13]" in str(check.fix)
    assert diagnosis.is_usable


def test_missing_encoders_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_has_codec", lambda name, mode: mode == "r")
    diagnosis = doctor.examine()
    assert by_name(diagnosis)["clip encoders"].status == "missing"
    assert not diagnosis.is_usable
    assert diagnosis.will_use == {}


def test_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_has_codec", lambda name, mode: name != "hevc")
    check = by_name(doctor.examine())["video decoders"]
    assert check.status == "note"
    assert "hevc" in str(check.fix)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_usable"] is True
    assert {"name", "found", "status", "fix"} == set(found["checks"][0])
