# SPDX-License-Identifier: Apache-2.0
"""The page of results: all experiments of a folder, made from one JSON file a run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metassl_monai.files import atomic_write

from .figures import dice_figure
from .runs import Run, read_run
from .tables import by_row, dice_table, pairs_table, runs_table

__all__ = ["cases_picture", "results_page", "write_results"]

_BEGINNING = """\
# Results

<!-- made by `metassl experiment` from the files beside it: do not edit -->
"""
_LEGEND = """\
Dice on the {split} subjects; *mean* is over the structures. Its two 95 % intervals (Student's t) are over the subjects,
each averaged over its frames and the runs, and over the runs. A difference from a baseline is that of the subjects,
each averaged over the runs that both rows have: its mean with 95 % interval, its mean in each run, the Wilcoxon p
adjusted after Holm for the rows of the column, and the smallest difference that one t-test on as many subjects of this
spread would detect in 80 % of such comparisons. The subjects' spread says nothing of other labeled subsets; the runs'
does.
"""
_AVERAGED = """\
The same networks, but with the exponential moving average of the weights, `models/model_ema.pt` of each run:
"""
_EXPLAINED = """\
What the unlabeled pairs looked like at the end of the training, mean over pairs and runs: the share of voxels in each
region, how often the reference is right in it (on hidden labels), the pooled Dice of the reference (on hidden labels,
mean over the structures), the mean foreground threshold, and the loss terms as they enter the total, summed over pairs.
"""


def write_results(folder: str | Path) -> Path:
    """Write the page of a folder of results beside it, as ``<folder>.md``, and the bars that it shows into the folder.

    Args:
        folder: see :func:`results_page`.

    Returns:
        The page.
    """
    folder = Path(folder)
    for file in sorted(folder.glob("*.json")):
        for number, runs in _by_number(_runs(file)).items():
            picture = dice_figure(by_row(runs), f"{_definition(file)['title']}, {number} labeled")
            with atomic_write(_picture(file, number), "wb") as target:
                picture.savefig(target, format="png", dpi=110)
    page = folder.with_name(f"{folder.name}.md")
    with atomic_write(page) as target:
        target.write(results_page(folder))
    return page


def results_page(folder: str | Path) -> str:
    """Make the tables of all experiments in a folder, in Markdown.

    Args:
        folder: holds the definition of each experiment, ``<name>.json``, a JSON file for each of its runs in the
            sub-folder ``<name>``, and, where there are some, the pictures of :func:`cases_picture` and
            ``conclusions.md``, which the page begins with.

    Returns:
        The page.
    """
    folder = Path(folder)
    conclusions = folder / "conclusions.md"
    parts = [conclusions.read_text(encoding="utf-8")] if conclusions.is_file() else []
    parts += [_experiment(path) for path in sorted(folder.glob("*.json"))]
    return "\n".join([_BEGINNING, *parts])


def cases_picture(folder: str | Path, experiment: str, labeled: int, subset: str, seed: int) -> Path:
    """Return where a folder of results keeps the picture of a few cases as the rows of an experiment segment them.

    Example:
        >>> cases_picture("results", "acdc", 3, "published", 1337).as_posix()
        'results/acdc_3_published_1337_cases.png'
    """
    return Path(folder) / f"{experiment}_{labeled}_{subset}_{seed}_cases.png"


def _experiment(file: Path) -> str:
    definition, runs = _definition(file), _runs(file)
    baselines = definition.get("baselines", ["plain", "paper"])
    shown = Path(file.parent.name, file.name) if file.is_absolute() else file  # a page is read on other machines
    command = f"metassl experiment {shown.as_posix()} --dataset-dir DATA --out runs"
    commands = f"{command}\n{command} --row ROW --subset SUBSET --seed SEED  # one run, compared with the stored one"
    parts = [f"## {definition['title']}\n", definition["about"] + "\n", f"```sh\n{commands}\n```\n"]
    parts.append(_LEGEND.format(split=definition["split"]))
    for number, some in _by_number(runs).items():
        rows = by_row(some)
        picture = f"![Mean Dice of each row]({file.parent.name}/{_picture(file, number).name})\n"
        parts += [f"### {number} labeled\n", picture, dice_table(rows, baselines)]
        averaged = [{**run, "cases": run["ema_cases"]} for run in some if "ema_cases" in run]
        parts += [_AVERAGED, dice_table(by_row(averaged), baselines)] if averaged else []
        parts += [_EXPLAINED, pairs_table(rows)]
        parts += _cases(file, some)
    return "\n".join([*parts, "### Runs\n", runs_table(runs)])


def _definition(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _runs(file: Path) -> list[Run]:
    return [read_run(path) for path in sorted(file.with_suffix("").glob("*.json"))]


def _by_number(runs: Iterable[Run]) -> dict[int, list[Run]]:
    numbers: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        numbers[run["settings"]["labeled"]].append(run)
    return dict(sorted(numbers.items()))


def _picture(file: Path, number: int) -> Path:
    return file.with_name(f"{file.stem}_{number}.png")


def _cases(file: Path, runs: Iterable[Run]) -> Iterator[str]:
    """Yield what shows each picture of cases that has been drawn."""
    for labeled, subset, seed in dict.fromkeys(_data_of(run) for run in runs):
        picture = cases_picture(file.parent, file.stem, labeled, subset, seed)
        if picture.is_file():
            yield f"A slice of the first cases, labeled subset {subset}, seed {seed}:\n"
            yield f"![Image, annotation and each row's prediction]({file.parent.name}/{picture.name})\n"


def _data_of(run: Run) -> tuple[int, str, int]:
    return run["settings"]["labeled"], run["settings"]["subset"], run["settings"]["seed"]
