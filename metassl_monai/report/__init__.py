# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of results: a row per case and structure, their summary over subjects, overlays, curves."""

from __future__ import annotations

from .cases import CaseRow, case_rows, format_summary, summarize, write_case_table
from .curves import history_figure, read_history, weight_figure
from .figures import NO_REGION, overlay_figure, quadripartition_figure

__all__ = [
    "NO_REGION",
    "CaseRow",
    "case_rows",
    "format_summary",
    "history_figure",
    "overlay_figure",
    "quadripartition_figure",
    "read_history",
    "summarize",
    "weight_figure",
    "write_case_table",
]
