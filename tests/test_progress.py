# SPDX-License-Identifier: Apache-2.0
"""A bar in a terminal, a line a minute in a file."""

from __future__ import annotations

import io
import sys

import pytest

from metassl_monai.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_one_line_without_carriage_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    assert list(Progress(range(500), desc="counting", unit="number")) == list(range(500))
    (line,) = file.getvalue().splitlines()
    assert line.startswith("counting: 500/500 number")
    assert "\r" not in file.getvalue()


def test_a_file_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    progress = Progress(total=600, desc="counting", unit="number")
    clock = progress.start_t
    monkeypatch.setattr(progress, "_time", lambda: clock)
    for _ in range(600):
        clock += 1
        progress.update()
    progress.close()
    assert len(file.getvalue().splitlines()) == pytest.approx(11, abs=1)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(Progress(range(3), desc="counting"))
    assert "\rcounting: 100%|" in terminal.getvalue()


def test_a_closed_bar_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    progress = Progress(total=1)
    progress.close()
    progress.close()
    assert len(file.getvalue().splitlines()) == 1
