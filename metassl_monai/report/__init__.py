# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of results: a row per case and structure, summaries and comparisons, overlays, curves."""

from __future__ import annotations

from .cases import CaseRow, case_rows, format_summary, summarize, write_case_table
from .comparison import Comparison, compare_cases, format_comparison, holm, paired_comparison, subject_differences
from .curves import history_figure, read_history, weight_figure
from .figures import NO_REGION, methods_figure, overlay_figure, quadripartition_figure
from .result_figures import dice_figure
from .results import cases_picture, results_page, write_results
from .runs import Run, mean_score, read_run, write_run

__all__ = [
    "NO_REGION",
    "CaseRow",
    "Comparison",
    "Run",
    "case_rows",
    "cases_picture",
    "compare_cases",
    "dice_figure",
    "format_comparison",
    "format_summary",
    "history_figure",
    "holm",
    "mean_score",
    "methods_figure",
    "overlay_figure",
    "paired_comparison",
    "quadripartition_figure",
    "read_history",
    "read_run",
    "results_page",
    "subject_differences",
    "summarize",
    "weight_figure",
    "write_case_table",
    "write_results",
    "write_run",
]
