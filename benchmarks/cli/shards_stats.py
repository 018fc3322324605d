"""`fourfold shards stats`: tables of sizes and motion, and the count of colors."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.results.output import plain, print_facts, print_json, print_table
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from pipelines.shards.tools.shard_stats import FolderStats, Spread
    from pipelines.targets.color.color_prior import ColorPrior

__all__ = ["show_stats"]


def show_stats(folder: str, with_colors: bool, as_json: bool) -> None:
    """Print sizes and motion, then count the colors of every training image and print them."""
    from pipelines.shards.tools.shard_stats import measure

    measured = measure(folder)
    has_images = any((group.kind, group.split) == ("image", "train") for group in measured.groups)
    if as_json:
        with quiet_progress():
            colors = _count(folder) if with_colors and has_images else None
        print_json({**plain(measured), "colors": _color_facts(colors) if colors else None})
        return
    print_table(folder, ["kind", "split", "what", "min", "5 %", "median", "95 %", "max"], _rows(measured))
    for group in measured.groups:
        if group.motion is not None:
            share, limit = group.motion.near_static_ratio, group.motion.near_static
            print(f"{group.split} clips: {100 * share:.1f} % of {group.motion.num_clips} near static (below {limit:g})")
    # After the tables: counting decodes every image, and they need not wait for it.
    if with_colors and has_images:
        print_facts("\ncolors", _color_facts(_count(folder)))


def _rows(measured: "FolderStats") -> list[list[Any]]:
    rows = []
    for group in measured.groups:
        numbers = {"width, px": group.width_px, "height, px": group.height_px, "size, kB": group.sample_bytes}
        for name, spread in numbers.items():
            rows.append([group.kind, group.split, name, *_quantiles(spread, 1e-3 if "kB" in name else 1)])
        if group.motion is not None:
            rows.append([group.kind, group.split, "motion", *_quantiles(group.motion.motion)])
    return rows


def _quantiles(spread: "Spread", factor: float = 1) -> list[float]:
    return [value * factor for value in asdict(spread).values()]


def _count(folder: str) -> "ColorPrior":
    from pipelines.run.color_counts import count_prior

    return count_prior(folder)


def _color_facts(prior: "ColorPrior") -> dict[str, Any]:
    """Return the facts of a color prior but the 313 shares, which are in the file."""
    from pipelines.targets.color.color_prior import PRIOR_NAME

    gray = {"num_images": prior.num_images, "num_gray_images": prior.num_gray_images}
    return {"split": prior.split, **gray, "written": PRIOR_NAME}
