"""Numbers of the paper that the report puts beside ours: ImageNet, frozen ResNet-101, single runs (Tables 1 and 2)."""

from dataclasses import dataclass

__all__ = ["PAPER_ROWS", "PaperRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """Recall in per cent; None where the paper gives none."""

    top5_pct: float
    top1_pct: float | None = None


RP, COL, EX, MS = "relative_position", "colorization", "exemplar", "motion_segmentation"
PAPER_ROWS: dict[frozenset[str], PaperRow] = {
    frozenset(): PaperRow(top5_pct=10.5),
    frozenset({RP}): PaperRow(top5_pct=59.21, top1_pct=36.21),
    frozenset({COL}): PaperRow(top5_pct=62.48, top1_pct=39.62),
    frozenset({EX}): PaperRow(top5_pct=53.08, top1_pct=31.51),
    frozenset({MS}): PaperRow(top5_pct=48.29, top1_pct=27.62),
    frozenset({RP, COL}): PaperRow(top5_pct=66.64),
    frozenset({RP, EX}): PaperRow(top5_pct=65.24),
    frozenset({RP, MS}): PaperRow(top5_pct=63.73),
    frozenset({RP, COL, EX}): PaperRow(top5_pct=68.65),
    frozenset({RP, COL, EX, MS}): PaperRow(top5_pct=69.30),
    frozenset({"supervised"}): PaperRow(top5_pct=85.10, top1_pct=66.82),
}
"""By task set; the empty set is random initialisation, `supervised` is ImageNet labels."""
