# SPDX-License-Identifier: Apache-2.0
"""The documentation says what is so."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


PAGES = ("README.md", "docs/folders.md", "docs/losses.md", "docs/methods.md", "docs/monitoring.md")


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), {})


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_a_package_index_has_no_dead_link():
    """There the files of the repository are not beside it. What is read is the metadata of the installed package."""
    page = importlib.metadata.metadata("metassl-monai")["Description"]
    assert "pip install" in page
    assert re.findall(r"\]\((?!https?:)[^)]*\)", page) == []
    assert "Above" not in page  # of a picture that is not there


def test_the_readme_opens_with_its_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[3:5] == ['pip install ".[itk,mlflow]" && metassl demo', 'pip install -e ".[test]" && pytest']


def test_the_page_of_benchmarks_is_made_from_its_files():
    page = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "write_page.py"))["page"]()
    assert page == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_the_presets_of_the_documentation_are_those_of_the_code():
    from metassl_monai.losses import PRESETS, metassl_losses

    page = (ROOT / "docs/losses.md").read_text()
    number = r"([\d.]+)"
    rows = re.findall(rf"^\| `(\w+)`[^|]*\| {number} \| {number} \| {number} \|", page, re.M)
    written = {name: tuple(map(float, values)) for name, *values in rows}
    coded = {
        name: (preset["labeled"]["delta"], preset["unlabeled"]["delta"], preset["threshold"]["keep"])
        for name, preset in PRESETS.items()
        if not name.startswith("ref_")
    }
    assert written == coded
    four = " / ".join([number] * 4)
    weights = {
        name: ([float(v) for v in values[:4]], [float(v) for v in values[4:]])
        for name, *values in re.findall(rf"^\| `(ref_\w+)` \| [^|]+ \| {four} \| {four} \|", page, re.M)
    }
    assert set(written) | set(weights) == set(PRESETS)
    for name, (unlabeled, labeled) in weights.items():
        for loss, expected in zip(metassl_losses(4, name), (labeled, unlabeled), strict=True):
            assert (loss.scale * loss.region_weights()).tolist() == pytest.approx(expected, rel=1e-3), name


def test_what_reliability_promises_is_tested():
    named = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs/reliability.md").read_text())
    assert len(named) > 30
    for file, function in named:
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), f"{file}::{function}"


def test_what_is_said_of_other_programs_is_tested():
    page = (ROOT / "docs/integrations.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| with")]
    assert len(rows) > 10
    for row in rows:
        ((file, function),) = re.findall(r"`(\S+\.py)::(\w+)`", row)
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), f"{file}::{function}"
