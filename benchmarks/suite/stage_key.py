"""Keys of stages: the sha256 of what a stage's results depend on, its configuration and the content it reads."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.suite.stages import Stage
from training.run_folder import NOT_PART_OF_THE_RESULT

__all__ = ["STAGE_VERSIONS", "stage_of"]

STAGE_VERSIONS = {"pretrain": 4, "linear_probe": 2, "pixel_floor": 2}
"""Raise one by 1 when a change of code changes results: older records of that kind then no longer count."""
NOT_IN_KEY = NOT_PART_OF_THE_RESULT | {
    "images",
    "clips",
    "num_threads",
    "num_workers",
    "prefetch_batches",
    "cache_gib",
    "shared_features",
}


def stage_of(
    kind: str,
    label: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    needs: tuple[Stage, ...] = (),
    places: tuple[str, ...] = (),
) -> Stage:
    """Return a stage with its key. `places`: options that name data, whose content is in `inputs`."""
    identity = [kind, STAGE_VERSIONS.get(kind, 1), _identity(config, places), inputs]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()).hexdigest()
    return Stage(kind=kind, label=label, key=key, config=config, inputs=inputs, needs=needs)


def _identity(config: dict[str, Any], places: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what results depend on: no folders (their content is in `inputs`), threads or caches."""
    kept = {name: value for name, value in config.items() if name not in NOT_IN_KEY}
    if places:
        kept["options"] = {name: value for name, value in kept["options"].items() if name not in places}
    if isinstance(kept.get("pipeline"), dict):
        kept["pipeline"] = _identity(kept["pipeline"])
        # Written only where it was given: older suites keep their keys.
        placement = {
            source: _placed(given) for source, given in (kept["pipeline"].pop("placement", None) or {}).items()
        }
        if any(placement.values()):
            kept["pipeline"]["placement"] = {source: one for source, one in placement.items() if one}
    if isinstance(kept.get("trunk"), dict):
        # Places, too: the sha256 of the weights is in `inputs`.
        kept["trunk"] = {name: value for name, value in kept["trunk"].items() if name not in ("weights", "run")}
    return kept


def _placed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the placement of a source changes in its pixels."""
    return {name: value for name, value in given.items() if name not in NOT_IN_KEY and value not in (None, "auto")}
