# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of results: a row per case and structure, summaries and comparisons, overlays, curves."""

from __future__ import annotations

from .cases import CaseRow, case_rows, format_summary, summarize, write_case_table
from .comparison import Comparison, compare_cases, format_comparison, holm, paired_comparison, subject_differences
from .curves import history_figure, read_history, weight_figure
from .figures import NO_REGION, methods_figure, overlay_figure, quadripartition_figure

__all__ = [
    "NO_REGION",
    "CaseRow",
    "Comparison",
    "case_rows",
    "compare_cases",
    "format_comparison",
    "format_summary",
    "history_figure",
    "holm",
    "methods_figure",
    "overlay_figure",
    "paired_comparison",
    "quadripartition_figure",
    "read_history",
    "subject_differences",
    "summarize",
    "weight_figure",
    "write_case_table",
]
