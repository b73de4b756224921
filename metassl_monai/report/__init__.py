# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of results: a row per case and structure, their summary over subjects, overlays."""

from __future__ import annotations

from .cases import CaseRow, case_rows, format_summary, summarize, write_case_table
from .figures import overlay_figure

__all__ = ["CaseRow", "case_rows", "format_summary", "overlay_figure", "summarize", "write_case_table"]
