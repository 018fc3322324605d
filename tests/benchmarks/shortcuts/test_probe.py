"""Probes: the table by hand, softmax against scikit-learn."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.shortcuts.probe import level_of, softmax_logits, standardized, table_answers


def test_the_table_answers_what_was_most_frequent_and_else_the_overall_answer():
    codes, answers = np.array([0] * 20 + [1] * 30), np.array([2] * 20 + [1] * 30)
    assert table_answers(codes, answers, np.array([0, 1, 7]), 3).tolist() == [2, 1, 1]


def test_one_row_does_not_outweigh_the_overall_answer():
    codes, answers = np.array([0] + [1] * 50), np.array([2] + [1] * 50)
    assert table_answers(codes, answers, np.array([0]), 3).tolist() == [1]


def test_softmax_finds_the_layer_that_scikit_learn_finds():
    rng = np.random.default_rng(0)
    fit, held = rng.normal(size=(2, 200, 4)).astype(np.float32)
    answers = (fit @ rng.normal(size=(4, 3))).argmax(1)
    ours = softmax_logits(fit, answers, held, 3)
    scaled, held_scaled = standardized(fit, held)
    theirs = LogisticRegression(C=1 / (1e-3 * 200), tol=1e-8, max_iter=1000).fit(scaled, answers)
    assert (ours.argmax(1) == theirs.predict(held_scaled)).mean() > 0.98


def test_numbers_that_do_not_vary_become_zero():
    fit, held = standardized(np.array([[1, 0], [1, 2]], np.float32), np.array([[5, 1]], np.float32))
    assert fit.tolist() == [[0, -1], [0, 1]]
    assert held.tolist() == [[0, 0]]


def test_levels_hold_equally_many():
    fit, held = level_of(np.arange(100, dtype=np.float32), np.array([-5, 24, 26, 999], np.float32), 4)
    assert np.bincount(fit).tolist() == [25, 25, 25, 25]
    assert held.tolist() == [0, 0, 1, 3]
