"""Evaluate one trunk outside of a suite: a run or foreign weights in, a record per evaluation out, in one folder.

OUT/<kind>-<key>/record.json, as a suite writes them; features that the evaluations share lie in OUT/features. A
finished evaluation is not run again, unless other code made its record.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.content import split_content
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.results.record import Record, environment, now_utc, read_record, write_record
from benchmarks.source_code import installed_sources
from benchmarks.suite.code.stage_code import StageCode
from benchmarks.suite.run_suite import plain_values
from benchmarks.suite.stage_key import stage_of
from benchmarks.suite.stages import Stage
from pipelines.base.config import Config
from pipelines.base.errors import DataError, UsageError

__all__ = ["evaluate_trunk"]


def evaluate_trunk(
    context: Context, evaluations: Mapping[str, Config], out: Path, *, say: Callable[[str], None] = lambda line: None
) -> dict[str, Record]:
    """Run evaluations, given as options by kind, and return their records in that order.

    Everything is checked before the first pass: trunk, data, options. Raises UsageError or DataError, and has then
    written nothing.
    """
    context = replace(context, store=out / "features")
    # 1. All checks first: the third evaluation's missing folder must not cost the first one's hour.
    trunk = context.the_trunk()
    for kind, options in evaluations.items():
        try:
            EVALUATIONS[kind].check(context, options)
        except (UsageError, DataError) as error:
            raise type(error)(f"{kind}: {error}") from error
    trunk.load(torch.device("cpu"))
    stages = {kind: _stage(context, trunk, kind, options) for kind, options in evaluations.items()}
    # 2. The first pass over the images makes the features of all.
    wanted = [one for kind, options in evaluations.items() for one in EVALUATIONS[kind].requests(context, options)]
    context = replace(context, wanted=tuple(dict.fromkeys(wanted)))
    records = {}
    for kind, stage in stages.items():
        folder = out / stage.folder_name
        record = read_record(folder, stage.key)
        # Records that are older than digests of code say nothing, and count.
        is_by_other_code = record is not None and record.code not in ("", stage.code)
        if record is not None and not is_by_other_code:
            say(f"{kind}: finished before, in {folder}")
        else:
            say(f"{kind}: running{' again, since other code made the record' if is_by_other_code else ''}")
            record = _run(context, stage, evaluations[kind], folder)
        records[kind] = record
    return records


def _stage(context: Context, trunk: TrunkSource, kind: str, options: Config) -> Stage:
    evaluation = EVALUATIONS[kind]
    config = {"options": options.model_dump(mode="json"), "trunk": plain_values(asdict(trunk))}
    inputs = {"trunk": trunk.content, **evaluation.content(options)}
    if evaluation.reads_images:
        splits = context.train_split, context.test_split
        config |= {"images": str(context.the_images()), "train_split": splits[0], "test_split": splits[1]}
        inputs |= {f"images_{split}": split_content(context.the_images(), "image", split) for split in splits}
    label = f"{kind} of {trunk.run or trunk.architecture}"
    stage = stage_of(kind, label, config, inputs, places=evaluation.data_fields)
    return replace(stage, code=StageCode(installed_sources()).of(stage))


def _run(context: Context, stage: Stage, options: Config, folder: Path) -> Record:
    start_s = time.monotonic()
    results = plain_values(EVALUATIONS[stage.kind].run(context, options))
    record = Record(
        kind=stage.kind,
        key=stage.key,
        label=stage.label,
        date=now_utc(),
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config=stage.config,
        inputs=stage.inputs,
        results=results,
        code=stage.code,
    )
    write_record(folder, record)
    return record
