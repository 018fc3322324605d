"""What people ask of a pipeline and need not change: answers from the measurements, beside the advice.

Is the DCT-domain decoder of any use here? Would other files, plain ones or other shards, be read faster?
"""

from dataclasses import replace

import numpy as np

from benchmarks.profile.judge.advice import MIN_GAIN
from benchmarks.profile.judge.measurements import Measured
from benchmarks.profile.measure.stage_hooks import sources_of
from benchmarks.profile.model.queueing import PipelineModel
from benchmarks.profile.model.simulation import simulate
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.choice import choose_backend
from pipelines.decode.reduction import MIN_SHRINKING, reduction
from pipelines.tasks import TASKS
from training.parallel import choose_device

__all__ = ["reduced_decode", "standing_questions", "storage"]

NUM_CROPS = 256


def standing_questions(measured: Measured) -> tuple[tuple[str, str], ...]:
    """(question, answer)."""
    config = measured.config
    found = [("plain files, or other shards", storage(measured.model))]
    if "decode image" in measured.costs:
        backend = choose_backend(config.pipeline.backend, choose_device(config.device)).name
        sides_px = crop_sides_px(config.pipeline)
        found.append(("decoding in the DCT domain", reduced_decode(sides_px, config.pipeline.canvas_px, backend)))
    return tuple(found)


def storage(model: PipelineModel) -> str:
    """What storing samples in another way could give at most: what free reading would."""
    free = replace(model, feeds=tuple(replace(feed, read_s=0.0, waits_s=(0.0,)) for feed in model.feeds))
    gain = simulate(free).samples_per_s / simulate(model).samples_per_s
    share = model.cpu_by_stage()["read"] / max(model.cpu_s, 1e-12)
    most = f"reading has {share:.1%} of the CPU time; were it free, x {gain:.2f}"
    return f"{most}: no way of storing them helps" if gain < MIN_GAIN else f"{most} is the most that storing can give"


def reduced_decode(sides_px: list[int], canvas_px: int, backend: str) -> str:
    """Whether JPEGs are decoded at half size or less. sides_px: of crops, as they were drawn."""
    ratio = float(np.mean([reduction(side_px, canvas_px) > 1 for side_px in sides_px]))
    least_px = MIN_SHRINKING * 2 * canvas_px
    where = f"{ratio:.0%} of the crops have the {least_px} px a side that halving takes"
    if not ratio:
        return f"of no use: {where}"
    if backend == "opencv":
        return f"{where}; of those, JPEGs are decoded at reduced size"
    return f"{where}; backend {backend} decodes all of them whole, opencv would not"


def crop_sides_px(config: PipelineConfig) -> list[int]:
    """Sides of the first crops of the plan."""
    with build_pipeline(config, seed=0) as pipeline:
        source = sources_of(pipeline)["image"]
        names = [name for name in config.tasks if TASKS[name].source == "image"]
        sides: list[int] = []
        for batch in range(-(-NUM_CROPS // config.batch_size)):
            box_B4 = source.draw(source.plan.picks(batch), names).common["box"]
            sides += (box_B4[:, 2] - box_B4[:, 0]).tolist()
        return sides
