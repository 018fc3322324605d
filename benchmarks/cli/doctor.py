"""Checks of this machine: what it has, what fourfold will use of it, and what is missing. Changes nothing.

A check is "ok", "note" (works, but could be better), "optional" (an extra that is not installed) or "missing" (fourfold
cannot work without it).
"""

import importlib.util
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.cli.requirements import Requirement, extras, hard_requirements, installed_version
from benchmarks.results.output import print_facts, print_table, size_text
from pipelines.base.machine import num_cores

__all__ = ["Check", "Diagnosis", "examine", "show"]

Status = Literal["ok", "note", "optional", "missing"]
EXTRAS_FOR = {
    "ray": "shards built by a Ray cluster (shards build --engine ray)",
    "s3": "s3:// URLs",
    "hf": "saved Hugging Face datasets as sources of shards",
    "demo": "the pictures of fourfold demo",
    "peers": "other loaders to compare with (profile --loaders)",
}
"""What each extra is for. Not here: DALI's two, which have a check of their own, and what only developers need."""
PURPOSE_OF = {"kornia": "motion masks of clips on a GPU"}
"""What a required package is for, where its name does not say it."""
DALI_PACKAGES = ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-dali-cuda110")
CLIP_ENCODERS = {"vp9": "libvpx-vp9", "mjpeg": "mjpeg"}
VIDEO_DECODERS = ("h264", "hevc", "mpeg4", "vp9", "mjpeg")
CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")
LOW_MEMORY_BYTES = 4 << 30
LOW_DISK_BYTES = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one check. `fix` says what to do; None if nothing."""

    name: str
    found: str
    status: Status = "ok"
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Results of all checks, and what `auto` chooses on this machine."""

    checks: tuple[Check, ...]
    will_use: dict[str, str]
    is_usable: bool


def examine(folder: Path = Path()) -> Diagnosis:
    """Run all checks. `folder`: where disk space is needed."""
    parts: tuple[Callable[[], Iterator[Check]], ...] = (_packages, _extras, _gpu, _dali, _codecs, _cpu, _memory)
    checks = tuple(check for part in parts for check in part())
    checks += (_disk(folder),)
    is_usable = all(check.status != "missing" for check in checks)
    # What is missing cannot be imported, and the choice is made by the code that imports it.
    return Diagnosis(checks=checks, will_use=_will_use() if is_usable else {}, is_usable=is_usable)


def show(diagnosis: Diagnosis) -> None:
    """Print the diagnosis for people."""
    rows = [(check.name, check.status, check.found) for check in diagnosis.checks]
    print_table("this machine", ["what", "", "found"], rows)
    print()
    print_facts("will be used", diagnosis.will_use or {"nothing": "something required is missing, see below"})
    print()
    fixes = {check.name: check.fix for check in diagnosis.checks if check.fix}
    print_facts("missing or could be better", fixes or {"nothing": "everything that fourfold can use is installed"})


def _packages() -> Iterator[Check]:
    yield Check(name="python", found=platform.python_version())
    yield from map(_required, hard_requirements())


def _required(needed: Requirement) -> Check:
    found = installed_version(needed.name)
    if found is None:
        return Check(name=needed.name, found="not installed", status="missing", fix=f"pip install {needed.pip}")
    if not needed.is_met_by(found):
        too_old = f"{found}, need {needed.at_least} or later"
        return Check(name=needed.name, found=too_old, status="missing", fix=f"pip install --upgrade {needed.pip}")
    purpose = PURPOSE_OF.get(needed.name)
    return Check(name=needed.name, found=f"{found}, for {purpose}" if purpose else found)


def _extras() -> Iterator[Check]:
    added = extras()
    for extra, purpose in EXTRAS_FOR.items():
        found = {needed.name: installed_version(needed.name) for needed in added.get(extra, [])}
        if all(found.values()):
            text = ", ".join(f"{name} {version}" for name, version in found.items())
            yield Check(name=f"extra {extra}", found=text)
        else:
            text = f"not installed; for {purpose}: pip install 'fourfold[{extra}]'"
            yield Check(name=f"extra {extra}", found=text, status="optional")


def _gpu() -> Iterator[Check]:
    # Looked for before it is imported: without torch, this report must still come to its end.
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch has no CUDA"
        yield Check(name="GPU", found=f"none that torch can use ({built})", status="note", fix=_gpu_fix())
        return
    driver = _driver_version()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = size_text(properties.total_memory)
        compute = f"compute capability {properties.major}.{properties.minor}"
        yield Check(name=f"GPU {index}", found=f"{properties.name}, {memory}, {compute}, driver {driver}")


def _gpu_fix() -> str | None:
    """Return advice where there is a GPU that torch does not see, else None."""
    if not Path("/proc/driver/nvidia/version").exists():
        return None
    return "the NVIDIA driver is loaded, but torch sees no GPU: install a torch built for this driver's CUDA"


def _driver_version() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        found = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
        return str(found)
    except Exception:
        # NVML is extra information; without the nvidia-ml-py package or its library the GPU works all the same.
        return "unknown (pip install nvidia-ml-py)"


def _dali() -> Iterator[Check]:
    found = next((version for name in DALI_PACKAGES if (version := installed_version(name))), None)
    if found is not None and _has_module("nvidia.dali"):
        yield Check(name="DALI", found=found)
        return
    fix = "pip install 'fourfold[cuda13]' (or cuda12, after the CUDA of your driver) for the dali backend"
    yield Check(name="DALI", found="not installed: the opencv backend is used", status="note", fix=fix)


def _codecs() -> Iterator[Check]:
    if importlib.util.find_spec("av") is not None:
        encoders = [codec for codec, name in CLIP_ENCODERS.items() if _has_codec(name, "w")]
        decoders = [name for name in VIDEO_DECODERS if _has_codec(name, "r")]
        if encoders:
            yield Check(name="clip encoders", found=", ".join(encoders))
        else:
            fix = "pip install --force-reinstall av (its wheels have VP9 and MJPEG)"
            yield Check(name="clip encoders", found="none", status="missing", fix=fix)
        lacking = [name for name in VIDEO_DECODERS if name not in decoders]
        fix_decoders = f"no decoder for {', '.join(lacking)}: such videos are rejected" if lacking else None
        status: Status = "note" if lacking else "ok"
        yield Check(name="video decoders", found=", ".join(decoders), status=status, fix=fix_decoders)
    if importlib.util.find_spec("cv2") is not None:
        import cv2

        if hasattr(cv2, "calcOpticalFlowPyrLK"):
            yield Check(name="optical flow", found=f"OpenCV {cv2.__version__} with Lucas-Kanade")
        else:
            fix = "pip install --force-reinstall opencv-python-headless"
            yield Check(name="optical flow", found="OpenCV without Lucas-Kanade", status="missing", fix=fix)


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _cpu() -> Iterator[Check]:
    cores = num_cores()
    yield Check(name="CPU", found=f"{_cpu_name()}, {cores} core{'s' if cores > 1 else ''} for this process")
    flags = _bf16_flags()
    found = ", ".join(flags) if flags else "no bf16 instructions: bf16 on this CPU is emulated and slow"
    yield Check(name="CPU bf16", found=found, status="ok" if flags else "note")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _bf16_flags() -> list[str]:
    # x86 calls the field "flags", ARM "Features".
    found = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return [flag for flag in CPU_BF16_FLAGS if flag in found]


def _cpuinfo(field: str) -> str | None:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)


def _memory() -> Iterator[Check]:
    if importlib.util.find_spec("psutil") is None:
        return
    import psutil

    memory = psutil.virtual_memory()
    found = f"{size_text(memory.available)} free of {size_text(memory.total)}"
    is_low = memory.available < LOW_MEMORY_BYTES
    fix = "little memory is free: lower pipeline.prefetch_batches and pipeline.batch_size" if is_low else None
    yield Check(name="memory", found=found, status="note" if is_low else "ok", fix=fix)


def _disk(folder: Path) -> Check:
    usage = shutil.disk_usage(folder)
    found = f"{size_text(usage.free)} free of {size_text(usage.total)} at {folder.resolve()}"
    if usage.free < LOW_DISK_BYTES:
        return Check(
            name="disk", found=found, status="note", fix="little disk is free: shards need about their sources' size"
        )
    return Check(name="disk", found=found)


def _will_use() -> dict[str, str]:
    """Return what `device: auto` and the placement of images and clips choose, by the code that chooses in a run."""
    import torch

    from pipelines.pipeline_config import SOURCE_NAMES, PipelineConfig

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(_bf16_flags())
    precision = "bf16, the default" if has_bf16 else "set precision: fp32; bf16, the default, is slow here"
    return {
        "device": device.type,
        **{name: str(PipelineConfig().placement_of(kind, device)) for kind, name in SOURCE_NAMES.items()},
        "decoding threads": str(num_cores()),
        "precision": precision,
    }


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        # find_spec imports the parent package, which may be missing itself.
        return False
