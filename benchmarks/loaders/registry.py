"""The loaders by name: where their code is, which data they read, and what has to be installed."""

from dataclasses import dataclass

__all__ = ["CONTENDERS", "LIMIT", "PEERS", "Contender"]

LIMIT = "dali decode alone"
PEERS = "fourfold[peers]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One loader. `data`: the folder that it reads; only those that map no files may read the same one, because what
    one of them maps cannot be dropped from the page cache for another."""

    module: str
    data: str
    what: str
    packages: tuple[str, ...]
    """Whose versions stand in the record."""
    opener: str = "open_loader"
    copy_of: str = ""
    """The folder that `data` is a copy of; "" where it is there already, or the loader writes it itself."""
    extra: str = ""
    """What to install where a package is missing; "" for what fourfold itself needs."""
    needs_ffmpeg: bool = False


PLACE = "benchmarks.loaders.contenders"
DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
DALI_EXTRA = "fourfold[cuda13]"

CONTENDERS: dict[str, Contender] = {
    LIMIT: Contender(
        module=f"{PLACE}.dali_decode",
        data="files",
        what="the limit: DALI decodes bytes in memory and does nothing else",
        packages=DALI,
        extra=DALI_EXTRA,
    ),
    "fourfold opencv": Contender(
        module=f"{PLACE}.fourfold_shards",
        data="shards",
        what="fourfold's pipeline, backend opencv",
        packages=("opencv-python-headless", "torch"),
        opener="open_opencv",
    ),
    "fourfold dali": Contender(
        module=f"{PLACE}.fourfold_shards",
        data="shards-dali",
        copy_of="shards",
        what="fourfold's pipeline, backend dali",
        packages=DALI,
        opener="open_dali",
        extra=DALI_EXTRA,
    ),
    "torch DataLoader": Contender(
        module=f"{PLACE}.torch_files",
        data="files",
        what="plain files, Pillow, torchvision",
        packages=("torch", "torchvision", "pillow"),
    ),
    "torch DataLoader, fourfold pixels": Contender(
        module=f"{PLACE}.torch_files_opencv",
        data="files",
        what="plain files, and fourfold's opencv backend in each worker",
        packages=("torch", "opencv-python-headless"),
    ),
    "webdataset": Contender(
        module=f"{PLACE}.webdataset_tars",
        data="shards-webdataset",
        copy_of="shards",
        what="fourfold's shards, Pillow, torchvision",
        packages=("webdataset", "torch", "torchvision", "pillow"),
    ),
    "dali webdataset reader": Contender(
        module=f"{PLACE}.dali_tars",
        data="dali",
        what="tars, read, decoded and resized in one graph",
        packages=DALI,
        extra=DALI_EXTRA,
    ),
    "spdl": Contender(
        module=f"{PLACE}.spdl_files",
        data="files",
        what="plain files, threads, FFmpeg's filters",
        packages=("spdl", "spdl-io", "av"),
        extra=PEERS,
        needs_ffmpeg=True,
    ),
    "mosaicml-streaming": Contender(
        module=f"{PLACE}.mosaic_streaming",
        data="mosaic",
        what="MDS shards, Pillow, torchvision",
        packages=("mosaicml-streaming", "torch", "torchvision", "pillow"),
        extra=PEERS,
    ),
    "litdata": Contender(
        module=f"{PLACE}.litdata_chunks",
        data="litdata",
        what="chunks, Pillow, torchvision",
        packages=("litdata", "torch", "torchvision", "pillow"),
        extra=PEERS,
    ),
}
