# SPDX-License-Identifier: Apache-2.0
"""The page of trainings: what was decided, trained and reached, what the network sees, and how to go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from metassl_monai.bundle.writable import check_writable_file
from metassl_monai.handlers import attach_to_run
from metassl_monai.report.page import Section, write_page

from .pages.cases import unlabeled_section
from .pages.comparison import comparison_section
from .pages.curves import curves_section, pictures_section
from .pages.facts import data_section, decisions_section, next_section, training_section
from .pages.run import TrainedRun
from .pages.scores import short_section, validation_section

__all__ = ["write_report"]


def write_report(sources: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of bundles, or of the output folders of trainings, as one HTML file that needs no other.

    The numbers of its tables lie beside it as CSV files. Where a trained network has validation cases and no table of
    them yet, or an older one, they are scored first. Where a training was tracked, its MLflow run gets page and tables.

    Args:
        sources: the folders; of several, the others are compared with the first.
        out: the file; ``report.html`` in the folder if left out, of several in the current one.

    Returns:
        The file.

    Raises:
        UserError: when a folder is neither a bundle nor of a training, or ``out`` cannot be written to.
    """
    runs = [TrainedRun(folder, name) for folder, name in zip(sources, _names(sources), strict=True)]
    if out is None:
        out = sources[0] / "report.html" if len(sources) == 1 else Path("report.html")
    check_writable_file(out)
    sections = [[*_sections(run)] for run in runs]
    if len(runs) == 1:
        files = write_page(out, f"Segmentation: {runs[0].name}", sections[0])
    else:
        each = [Section(run.name, parts=parts) for run, parts in zip(runs, sections, strict=True)]
        title = f"Segmentation: {', '.join(run.name for run in runs)}"
        files = write_page(out, title, [comparison_section(runs), *each])
    for run in runs:
        attach_to_run(run.folder, files, "report")
    sys.stdout.write(f"wrote {out}\n")
    return out


def _sections(run: TrainedRun) -> Iterator[Section]:
    validation = validation_section(run)  # first, since it makes the scores that others tell of
    yield from short_section(run)
    yield from decisions_section(run)
    yield from data_section(run)
    yield training_section(run)
    yield from curves_section(run)
    yield validation
    yield from unlabeled_section(run)
    yield from pictures_section(run)
    yield next_section(run)


def _names(sources: Sequence[Path]) -> list[str]:
    """Name each folder, together with as many of those that it lies in as it takes to tell them apart."""
    parts = [source.resolve().parts for source in sources]
    depths = range(1, max(map(len, parts)) + 1)
    names: list[str] = []
    for depth in depths:
        names = ["_".join(folders[-depth:]) for folders in parts]
        if len(set(names)) == len(names):
            break
    return names
