"""Every loader, in this process: makes the right canvases, every sample once in each pass, warm and cold."""

import importlib
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.loaders import CompareOptions
from benchmarks.loaders import host as host_module
from benchmarks.loaders.compare import setting_of
from benchmarks.loaders.host import Host
from benchmarks.loaders.loader_samples import prepare_samples
from benchmarks.loaders.registry import CONTENDERS, LIMIT
from tests.made.pictures import stored_images, write_folder

COMPARED = [name for name in CONTENDERS if name != LIMIT]
NUM_SAMPLES = 12
NEEDS = {"spdl": "spdl.io", "mosaicml-streaming": "streaming", "litdata": "litdata"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is timed here."""
    monkeypatch.setattr(host_module, "SETTLE_S", 0.0)


def options() -> CompareOptions:
    return CompareOptions(shards=Path("shards"), canvas_px=64, batch_size=4, num_cores=1, num_samples=NUM_SAMPLES)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contenders")
    write_folder(folder / "given", stored_images(NUM_SAMPLES))
    (folder / "data").mkdir()
    given = CompareOptions(shards=folder / "given", canvas_px=64, batch_size=4, num_cores=1, num_samples=NUM_SAMPLES)
    prepare_samples(given, folder / "data")
    return folder / "data"


def opened(name: str, samples: Path) -> Host:
    """Skips where its package is not installed."""
    if "dali" in name:
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    if name in NEEDS:
        try:
            importlib.import_module(NEEDS[name])
        except ImportError as error:
            pytest.skip(f"{name}: {error}")
    host = Host(CONTENDERS[name], setting_of(options(), samples, name))
    setting = host.setting
    if setting.folder.exists() and setting.folder.name not in ("files", "shards"):
        host.loader = getattr(importlib.import_module(CONTENDERS[name].module), CONTENDERS[name].opener)(setting)
    else:
        open_or_skip(host, samples)
    return host


def open_or_skip(host: Host, samples: Path) -> None:
    try:
        host.open(str(samples))
    except RuntimeError as error:
        if "libspdl" in str(error):
            pytest.skip("SPDL finds no FFmpeg")
        raise


@pytest.mark.parametrize("name", COMPARED)
def test_makes_the_canvases_of_the_reference(name: str, samples: Path) -> None:
    with closing(opened(name, samples)) as host:
        assert host.check()["differences"]["mean"] <= 0.75


@pytest.mark.parametrize("name", list(CONTENDERS))
def test_passes_are_whole_warm_and_cold(name: str, samples: Path) -> None:
    with closing(opened(name, samples)) as host:
        for is_cold in (False, True, False):
            answer = host.time(is_cold=is_cold, least_s=0.0)
            assert is_cold or answer["resident_ratio"] == 1
            if answer["num_passes"]:  # a file system in memory keeps everything
                assert answer["seconds"] > 0


@pytest.mark.parametrize("name", COMPARED)
def test_each_pass_has_every_sample_in_another_order(name: str, samples: Path) -> None:
    with closing(opened(name, samples)) as host:
        orders = []
        for epoch in range(3):
            assert host.loader is not None
            with closing(host.loader.start(epoch)) as batches:
                orders.append([row for batch in batches for row in batch.rows])
        assert [sorted(order) for order in orders] == [list(range(NUM_SAMPLES))] * 3
        assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("backend", ["opencv", "dali"])
def test_nothing_of_fourfold_is_read_before_the_first_request(backend: str, samples: Path) -> None:
    with closing(opened(f"fourfold {backend}", samples)) as host:
        for epoch in range(2):
            with closing(host.start()) as batches:
                before = read_by(host)
                time.sleep(0.1)
                assert read_by(host) == before, f"epoch {epoch}"
                next(batches)
                assert read_by(host) > before


def read_by(host: Host) -> int:
    assert host.loader is not None
    pipeline = host.loader._pipeline  # type: ignore[attr-defined]
    return {stage.name: stage.num_items for stage in pipeline.stage_stats()}["read"]
