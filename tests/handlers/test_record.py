# SPDX-License-Identifier: Apache-2.0
"""Differences are told in the words of the config, the cases first."""

from __future__ import annotations

from metassl_monai.handlers.record import LENGTH, record_differences

MADE = {"seed": 1, "iterations": 10, "ramp::iterations": 10, "train::dataset::data": ["a.nii", "b.nii"], "method": "x"}


def test_equal_records_have_no_differences() -> None:
    assert record_differences(MADE, dict(reversed(MADE.items()))) == ""


def test_cases_come_first_and_say_which() -> None:
    asked = {**MADE, "seed": 7, "train::dataset::data": ["b.nii", "c.nii"]}
    assert record_differences(MADE, asked) == "labeled cases: now with c.nii, now without a.nii; seed is 7 and was 1"
    asked = {**MADE, "train::dataset::data": ["b.nii", "a.nii"]}
    assert record_differences(MADE, asked) == "labeled cases: the same in another order"


def test_length_may_differ_where_it_is_left_out() -> None:
    asked = {**MADE, "iterations": 20, "ramp::iterations": 20}
    assert record_differences(MADE, asked, without=LENGTH) == ""
    assert record_differences(MADE, asked) == "iterations is 20 and was 10; ramp::iterations is 20 and was 10"


def test_what_only_one_has_is_absent_in_the_other_and_the_list_stays_short() -> None:
    assert record_differences({"a": 1}, {"b": None}) == "a is absent and was 1; b is null and was absent"
    assert record_differences({}, dict.fromkeys("abcde", 0)).endswith("c is 0 and was absent; 2 more")
