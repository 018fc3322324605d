"""The speed part of a configuration."""

import pytest

from training.config import PretrainConfig
from training.speed.speed_config import SpeedConfig


def test_off_is_a_word_and_the_default_is_not_written_down() -> None:
    assert SpeedConfig.model_validate({"compile": False}).compile == "off"
    assert "speed" not in PretrainConfig().model_dump()
    assert PretrainConfig.model_validate({"speed": {"compile": "auto"}}).model_dump()["speed"]["compile"] == "auto"


def test_compiling_and_recomputing_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="compile and recompute together"):
        SpeedConfig(compile="auto", recompute=True)
