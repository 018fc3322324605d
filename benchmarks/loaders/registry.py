"""The loaders by name: where their code is, which data they read, and what has to be installed."""

from dataclasses import dataclass
from typing import Any

__all__ = ["CONTENDERS", "LIMIT", "PEERS", "Contender"]

LIMIT = "dali decode alone"
PEERS = "fourfold[peers]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One loader.

    module, opener: a function Setting -> Loader. data: the folder that it reads; only loaders that map no files may
    share one, because what is mapped stays in the page cache. packages: whose versions stand in the record. writer:
    function of the module that writes the data; copy_of: else the folder that it is a copy of; else it is there.
    extra: what to install where a package is missing; "" for what fourfold itself needs.
    """

    module: str
    data: str
    what: str
    packages: tuple[str, ...]
    opener: str = "open_loader"
    writer: str = ""
    copy_of: str = ""
    extra: str = ""
    needs_ffmpeg: bool = False


DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
OURS = ("opencv-python-headless", "torch")
PILLOW = ("torch", "torchvision", "pillow")


def _contender(code: str, data: str, packages: tuple[str, ...], what: str, **more: Any) -> Contender:
    """Return a loader of this package; `code`: module and opener. Those on DALI need its extra."""
    module, _, opener = f"benchmarks.loaders.contenders.{code}".rpartition(".")
    more = {"extra": "fourfold[cuda13]" if packages == DALI else "", **more}
    return Contender(module=module, opener=opener, data=data, what=what, packages=packages, **more)


WHAT = {
    LIMIT: "the limit: DALI decodes bytes in memory and does nothing else",
    "fourfold opencv": "fourfold's pipeline, backend opencv",
    "fourfold dali": "fourfold's pipeline, backend dali",
    "torch DataLoader": "plain files, Pillow, torchvision",
    "torch DataLoader, fourfold pixels": "plain files, and fourfold's opencv backend in each worker",
    "webdataset": "fourfold's shards, Pillow, torchvision",
    "dali webdataset reader": "tars, read, decoded and resized in one graph",
    "spdl": "plain files, threads, FFmpeg's filters",
    "mosaicml-streaming": "MDS shards, Pillow, torchvision",
    "litdata": "chunks, Pillow, torchvision",
}
MDS, CHUNKS = ({"writer": f"write_{name}", "extra": PEERS} for name in ("mosaic", "litdata"))
# By name: module and opener, data, packages, and what else differs.
TABLE: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {
    LIMIT: ("dali.DecodeOnly", "files", DALI, {}),
    "fourfold opencv": ("fourfold_shards.open_opencv", "shards", OURS, {}),
    "fourfold dali": ("fourfold_shards.open_dali", "shards-dali", DALI, {"copy_of": "shards"}),
    "torch DataLoader": ("torch_files.open_loader", "files", PILLOW, {}),
    "torch DataLoader, fourfold pixels": ("torch_files.open_opencv", "files", OURS, {}),
    "webdataset": ("torch_peers.open_webdataset", "shards-webdataset", ("webdataset", *PILLOW), {"copy_of": "shards"}),
    "dali webdataset reader": ("dali.TarLoader", "dali", DALI, {"writer": "write_tars"}),
    "spdl": ("spdl.SpdlLoader", "files", ("spdl", "spdl-io", "av"), {"extra": PEERS, "needs_ffmpeg": True}),
    "mosaicml-streaming": ("torch_peers.open_mosaic", "mosaic", ("mosaicml-streaming", *PILLOW), MDS),
    "litdata": ("torch_peers.open_litdata", "litdata", ("litdata", *PILLOW), CHUNKS),
}
CONTENDERS = {name: _contender(*row[:3], WHAT[name], **row[3]) for name, row in TABLE.items()}
