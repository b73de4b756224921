# SPDX-License-Identifier: Apache-2.0
"""The paired statistics against slow forms of their own."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from metassl_monai.report import (
    case_rows,
    compare_cases,
    format_comparison,
    holm,
    paired_comparison,
    subject_differences,
)

NAN = math.nan
FEW = [0.02, -0.01, 0.05, 0.03, 0.01, 0.08]


def rows_of(*values: tuple[str, float], structure: str = "mean", metric: str = "dice") -> list[dict[str, Any]]:
    """A row a (case, value) pair; the subject is the case's first letter."""
    return [{"case": case, "subject": case[0], "structure": structure, metric: value} for case, value in values]


def wilcoxon_by_hand(differences: list[float]) -> float:
    """Share of all ways to give the ranks signs whose sum lies as far from its center as the one found."""
    ranks = stats.rankdata([abs(d) for d in differences if d])
    center = sum(ranks) / 2
    found = abs(sum(rank for rank, d in zip(ranks, filter(None, differences), strict=True) if d > 0) - center)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return sum(abs(value - center) >= found - 1e-9 for value in sums) / len(sums)


def holm_by_hand(p_values: list[float]) -> list[float]:
    """Each p against every other: the largest of (number of hypotheses not yet rejected) x p up to this one."""
    found = []
    for i, p in enumerate(p_values):
        before = [(q, j) for j, q in enumerate(p_values) if (q, j) <= (p, i)]
        steps = [q * sum((r, k) >= (q, j) for k, r in enumerate(p_values)) for q, j in before]
        found.append(min(1.0, max(steps)))
    return found


def test_interval_and_t_test_are_those_of_scipy() -> None:
    result = paired_comparison(FEW)
    expected = stats.ttest_1samp(FEW, 0)
    assert result.n == 6
    assert result.mean == pytest.approx(np.mean(FEW))
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert result.p_t == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    "differences",
    [FEW, [1, 2, 3, 4, 5, 6], [-1, 2, -3, 4, -5, 6], [1, 1, -1, 2, 2, 3], [0, 0, 1, 2, -3, 4]],
    ids=["plain", "all higher", "alternating", "ties", "zeros"],
)
def test_wilcoxon_is_the_share_of_sign_patterns(differences: list[float]) -> None:
    assert paired_comparison(differences).p_wilcoxon == pytest.approx(wilcoxon_by_hand(differences))


def test_rounding_errors_make_no_rank() -> None:
    noise = [0.1 + 0.2 - 0.3, 0.3 - 0.1 - 0.2, 0.0]
    assert 0 < max(noise) < 1e-15
    assert paired_comparison(noise)[1:] == (0, 0, 0, 1, 1, 0)
    assert paired_comparison([0.3, 0.1 + 0.2, -0.3]).p_wilcoxon == wilcoxon_by_hand([3, 3, -3])


def test_the_same_difference_everywhere_is_no_chance() -> None:
    assert paired_comparison([0.1] * 6) == pytest.approx((6, 0.1, 0.1, 0.1, 0, 2 / 2**6, 0))


@pytest.mark.parametrize(("n", "effect"), [(10, 0.99600), (20, 0.66044), (50, 0.40418)])
def test_detectable_is_the_published_effect_size(n: int, effect: float) -> None:
    differences = stats.zscore(np.arange(n), ddof=1)
    assert paired_comparison(differences * 3 + 7).detectable == pytest.approx(3 * effect, rel=1e-4)


@pytest.mark.parametrize("n", [3, 10])
def test_detectable_is_detected_in_80_percent_of_simulations(n: int) -> None:
    size = paired_comparison(stats.zscore(np.arange(n), ddof=1)).detectable
    draws = np.random.default_rng(0).normal(size, 1, (20000, n))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("differences", "mean"), [([], NAN), ([0.25], 0.25)])
def test_fewer_than_two_units_show_nothing(differences: list[float], mean: float) -> None:
    assert paired_comparison(differences) == pytest.approx((len(differences), mean, *[NAN] * 5), nan_ok=True)


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_difference_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        paired_comparison([0.1, value])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9))
def test_swapping_a_and_b_turns_the_signs_alone(differences: list[int]) -> None:
    one, other = paired_comparison(differences), paired_comparison([-value for value in differences])
    assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low))
    assert other[4:] == pytest.approx(one[4:])


def test_differences_are_averaged_within_subjects_whatever_the_order_of_cases() -> None:
    a = rows_of(("p1", 0.75), ("p2", 0.5), ("q1", 0.5))
    b = rows_of(("q1", 0.25), ("p2", 0.5), ("p1", 0.25))
    assert subject_differences(a, b, "dice") == {"p": 0.25, "q": 0.25}
    assert subject_differences(b, a, "dice") == {"q": -0.25, "p": -0.25}


def test_only_the_structure_that_was_asked_for_counts() -> None:
    a, b = (rows_of(("p1", x)) + rows_of(("p1", y), structure="LV") for x, y in ((0.5, 1.0), (0.25, 0.25)))
    assert subject_differences(a, b, "dice") == {"p": 0.25}
    assert subject_differences(a, b, "dice", structure="LV") == {"p": 0.75}


def test_cases_without_a_value_are_left_out_and_counted() -> None:
    a = rows_of(("p1", NAN), ("p2", 0.5), ("q1", NAN), ("r1", 0.5))
    b = rows_of(("p1", 0.5), ("p2", 0.25), ("q1", NAN), ("r1", NAN))
    assert subject_differences(a, b, "dice") == {"p": 0.25}
    [row] = compare_cases(a, b, metrics=["dice"])
    assert (row["n"], row["nan"], row["mean"], row["tests"]) == (1, 3, 0.25, 0)
    assert math.isnan(row["p_holm"])


def test_other_cases_are_named() -> None:
    a, b = rows_of(("p1", 0.5), ("q1", 0.5)), rows_of(("p1", 0.5), ("r2", 0.5), ("r1", 0.5))
    with pytest.raises(ValueError, match=r"same cases: only A has q1; only B has r1, r2$"):
        subject_differences(a, b, "dice")
    many = rows_of(*((f"s{i}", 0.5) for i in range(8)))
    with pytest.raises(ValueError, match=r"only A has s0, s1, s2, s3, s4 and 3 more$"):
        subject_differences(many, [], "dice")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (rows_of(("p1", 0.5), ("p1", 0.5)), rows_of(("p1", 0.5)), "A has the case 'p1' twice"),
        (rows_of(("p1", 0.5)), rows_of(("p1", 0.5), structure="LV"), "same structures: only A has mean; only B has LV"),
        (rows_of(("p1", 0.5)), rows_of(("p1", 0.5), metric="asd_mm"), "the metric 'dice'"),
    ],
    ids=["twice", "structures", "metric"],
)
def test_rows_that_do_not_fit_are_refused(a: list[dict], b: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_cases(a, b, metrics=["dice"])


def test_holm_is_its_published_example_and_leaves_nan_out() -> None:
    found = holm([0.01, 0.04, NAN, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, NAN, 0.06, 0.02], nan_ok=True)
    assert holm([]) == []
    assert holm([0.7, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_slow_form(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(holm_by_hand(p_values))


def test_a_row_a_structure_and_metric_each_metric_with_a_correction_of_its_own() -> None:
    random = np.random.default_rng(0)
    tables: list[list[dict[str, Any]]] = [
        [
            row
            for i in range(8)
            for row in case_rows(
                f"p{i}",
                f"p{i}",
                {name: {"dice": d, "hd95_mm": 9 * d} for name, d in zip("RL", random.random(2) + gain, strict=True)},
            )
        ]
        for gain in (0.9, 0.0)
    ]
    rows = compare_cases(*tables)
    assert [(row["structure"], row["metric"]) for row in rows] == [
        ("R", "dice"), ("R", "hd95_mm"), ("L", "dice"), ("L", "hd95_mm"), ("mean", "dice"), ("mean", "hd95_mm"),
    ]  # fmt: skip
    for metric in ("dice", "hd95_mm"):
        group = [row for row in rows if row["metric"] == metric]
        assert [row["p_holm"] for row in group] == holm([row["p_wilcoxon"] for row in group])
        assert [row["tests"] for row in group] == [3, 3, 3]
        for row in group:
            expected = paired_comparison([*subject_differences(*tables, metric, row["structure"]).values()])
            assert {name: row[name] for name in expected._fields} == expected._asdict()


def test_the_mean_over_one_structure_is_no_second_test() -> None:
    a, b = ([*case_rows("p", "p", {"LA": {"dice": x}}), *case_rows("q", "q", {"LA": {"dice": y}})] for x, y in (
        (0.5, 0.75), (0.25, 0.25),
    ))  # fmt: skip
    rows = compare_cases(a, b, metrics=["dice"])
    assert [(row["tests"], row["p_holm"], row["p_wilcoxon"]) for row in rows] == [(1, 0.5, 0.5)] * 2


def test_table_has_a_row_a_comparison_and_notes_what_was_left_out() -> None:
    a, b = (rows_of(("p", x), ("q", 0.5), ("r", y), structure="[b]") for x, y in ((0.75, NAN), (0.25, 0.5)))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(format_comparison(compare_cases(a, b, metrics=["dice"])))
    text = console.export_text()
    # t(0.975, 1) times the standard error of (0.5, 0)
    assert f"0.250 [{0.25 - 12.7062 * 0.25:.3f}, {0.25 + 12.7062 * 0.25:.3f}]" in text
    assert "[b]" in text
    assert "2 (1 NaN)" in text
