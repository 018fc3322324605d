"""Sources of a config: a folder as ever, or a list with weights, with errors that name the entry."""

from pathlib import Path

import pytest
import yaml

from pipelines.base.config import load_config
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from pipelines.read.source_config import SourceConfig, as_sources


def written(tmp_path, text):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_a_folder_stays_a_path_and_a_url_a_text():
    config = PipelineConfig(images="shards/photos", clips="s3://bucket/clips")
    assert (config.images, config.clips) == (Path("shards/photos"), "s3://bucket/clips")
    assert config.sources_of("image") == (SourceConfig(path=Path("shards/photos")),)


def test_none_is_no_source():
    assert as_sources(PipelineConfig().images) == ()


def test_a_list_from_yaml(tmp_path):
    text = "images: [{path: a, weight: 2}, {path: 's3://bucket/b'}]\n"
    config = load_config(PipelineConfig, written(tmp_path, text))
    assert config.sources_of("image") == (SourceConfig(path=Path("a"), weight=2.0), SourceConfig(path="s3://bucket/b"))
    assert load_config(PipelineConfig, written(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{path: b, weight: 0}", r"yaml:3: images\.1\.weight = 0: .*greater than 0"),
        ("{path: b, weight: .inf}", r"yaml:3: images\.1\.weight = inf"),
        ("{weight: 1}", r"yaml:3: images\.1\.path: Field required"),
        ("{path: b, wieght: 1}", r"yaml:3: .*images\.1\.wieght"),
        ("7", r"yaml:3: images\.1 = 7: .*dictionary"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(tmp_path, entry, message):
    path = written(tmp_path, f"images:\n- {{path: a}}\n- {entry}\n")
    with pytest.raises(UsageError, match=message):
        load_config(PipelineConfig, path)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="an empty list"):
        PipelineConfig(images=[])
