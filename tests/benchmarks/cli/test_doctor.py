"""Doctor: what is missing is said, with what to do, and decides the exit code."""

import json
import platform

import pytest

from benchmarks.cli import app as cli
from benchmarks.cli import doctor


def by_name(diagnosis: doctor.Diagnosis) -> dict[str, doctor.Check]:
    return {check.name: check for check in diagnosis.checks}


def test_this_machine_is_usable() -> None:
    diagnosis = doctor.examine()
    checks = by_name(diagnosis)
    assert diagnosis.is_usable
    assert checks["python"].found == platform.python_version()
    assert {"torch", "CPU", "memory", "disk", "clip encoders", "video decoders", "optical flow", "DALI"} <= set(checks)
    assert {"vp9", "mjpeg"} == set(checks["clip encoders"].found.split(", "))
    assert set(diagnosis.will_use) == {"device", "backend", "decoding threads", "precision"}


def test_missing_package_is_required(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda names: None if "timm" in names else real(names))
    check = by_name(doctor.examine())["timm"]
    assert (check.status, check.fix) == ("missing", "pip install timm")
    assert cli.run(["doctor"]) == 1
    assert "pip install timm" in capsys.readouterr().out


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
