"""Small fixed probes: a table of what is most frequent, and softmax regression. The same numbers give the same answers.

Letters: N rows, D numbers, K classes.
"""

import numpy as np
import numpy.typing as npt

from benchmarks.evaluations.probes.softmax import fit_softmax

__all__ = ["level_of", "softmax_logits", "standardized", "table_answers"]

Floats = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

L2 = 1e-3
MAX_ITERATIONS = 80
PRIOR_ROWS = 5.0
"""Rows of the overall frequencies that each row of the table begins with: a place seen twice proves little."""


def softmax_logits(fit_ND: Floats, answers_N: Int64s, held_ND: Floats, num_classes: int) -> Floats:
    """Return logits of the held-out rows, (N, K), of a layer fitted to answers 0 to K - 1."""
    fit_ND, held_ND = standardized(fit_ND, held_ND)
    layer = fit_softmax(fit_ND[None], answers_N, num_classes, l2=L2, max_iterations=MAX_ITERATIONS)
    return layer.logits(held_ND[None]).astype(np.float32)


def standardized(fit_ND: Floats, held_ND: Floats) -> tuple[Floats, Floats]:
    """Return both with the mean and spread of the first; numbers that do not vary become 0."""
    mean_D, sd_D = fit_ND.mean(0), fit_ND.std(0)
    scale_D = np.where(sd_D > 1e-6, 1 / np.maximum(sd_D, 1e-6), 0).astype(np.float32)
    return (fit_ND - mean_D) * scale_D, (held_ND - mean_D) * scale_D


def table_answers(fit_code_N: Int64s, answers_N: Int64s, held_code_N: Int64s, num_classes: int) -> Int64s:
    """Return for each held-out code the answer that was most frequent with it, (N,). Codes are from 0 on.

    A code that was never seen gets the overall answer.
    """
    num_codes = int(max(fit_code_N.max(), held_code_N.max())) + 1
    counts = np.bincount(fit_code_N * num_classes + answers_N, minlength=num_codes * num_classes)
    overall_K = np.bincount(answers_N, minlength=num_classes) / len(answers_N)
    table_CK = counts.reshape(num_codes, num_classes) + PRIOR_ROWS * overall_K
    answers: Int64s = table_CK.argmax(1)[held_code_N]
    return answers


def level_of(fit_N: Floats, held_N: Floats, num_levels: int) -> tuple[Int64s, Int64s]:
    """Return both as numbers of quantile bins of the first, 0 to `num_levels` - 1."""
    cuts = np.quantile(fit_N, np.linspace(0, 1, num_levels + 1)[1:-1])
    return np.searchsorted(cuts, fit_N, side="right"), np.searchsorted(cuts, held_N, side="right")
