# SPDX-License-Identifier: Apache-2.0
"""The whole way from data to a table of results, on drawn hearts, in a minute or two on a CPU."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_command, bundle_path, config_files, run_side_by_side
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import make_phantom
from metassl_monai.report import compare_cases, summarize

from .compare import verdicts
from .evaluate import evaluate_predictions
from .page import write_report

__all__ = ["run_demo"]

_BUNDLE = "phantom_segmentation"
_ITERATIONS = 200


class _Training(NamedTuple):
    folder: str
    name: str
    data: str
    configs: list[str]


_TRAININGS = (
    _Training(
        "bcp_metassl",
        "BCP + MetaSSL",
        "2 labeled and 14 unlabeled hearts, after a first stage on them",
        ["train", "bcp"],
    ),
    _Training("supervised", "supervised", "2 labeled hearts", ["train", "supervised", "plain"]),
)


def run_demo(out: Path) -> None:
    """Draw the phantom, train twice, segment the validation cases and print both results as they came out.

    Args:
        out: a new folder for everything that the demo makes.

    Raises:
        UserError: when ``out`` exists or cannot be written to, or a step fails.
    """
    if out.exists():
        raise UserError(f"{out} exists already: remove it, or choose another folder with --out.")
    check_writable(out)
    console = Console()
    datalist = make_phantom(out / "data")
    _say(f"data        24 drawn hearts in {out / 'data'}")
    for training in _TRAININGS:
        _say(f"training    {training.name}: {_ITERATIONS} iterations on {training.data}")
    with console.status(f"both train side by side, for about a minute on two CPU cores; see {out}/*/log.txt"):
        tables = _train_and_score(out, datalist)
        page = _report(out)
    console.print(_dice_table(tables))
    a, b = tables.values()
    _say(verdicts(compare_cases(a, b, metrics=("dice",)), *tables))
    _say(f"report      {page}")
    _say(f"picture     {max((out / _TRAININGS[0].folder / 'pictures').glob('epoch_*.png'))}")
    if find_spec("mlflow"):
        _say(f"MLflow      mlflow ui --backend-store-uri {shlex.quote(_tracking_uri(out))}")


def _say(text: str) -> None:
    # not through rich, which would break paths at the terminal's width
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tracking_uri(out: Path) -> str:
    return f"sqlite:///{out.resolve() / 'mlruns.db'}"


def _train_and_score(out: Path, datalist: Path) -> dict[str, list[dict[str, Any]]]:
    bundle, data = bundle_path(_BUNDLE), datalist.parent
    trainings, inferences = {}, {}
    for training in _TRAININGS:
        run = out / training.folder
        run.mkdir()
        ids = ["--dataset_dir", str(data), "--datalist", str(datalist), "--output_dir", str(run)]
        length = ["--iterations", str(_ITERATIONS)]
        tracked = ["--tracking", str(bundle / "configs" / "tracking.json"), "--tracking_uri", _tracking_uri(out)]
        tracking = tracked if find_spec("mlflow") else []
        network = ["--ckpt_path", str(run / "models" / "model.pt")]
        trainings[run / "log.txt"] = bundle_command(
            "training", config_files(bundle, training.configs), [*ids, *length, *tracking]
        )
        inferences[run / "log.txt"] = bundle_command("inference", config_files(bundle, ["inference"]), [*ids, *network])
    run_side_by_side(trainings)
    run_side_by_side(inferences)
    tables = {}
    for training in _TRAININGS:
        run = out / training.folder
        with (run / "log.txt").open("a") as log, redirect_stderr(log):
            # where the report looks, which would otherwise segment the cases once more
            scores = run / "evaluation_validation"
            tables[training.name] = evaluate_predictions(datalist, data, "validation", run / "predictions", scores)
    return tables


def _report(out: Path) -> Path:
    with (out / "report_log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        return write_report([out / training.folder for training in _TRAININGS], out / "report.html")


def _dice_table(tables: Mapping[str, Sequence[dict[str, Any]]]) -> Table:
    summaries = {name: [row for row in summarize(rows) if row["metric"] == "dice"] for name, rows in tables.items()}
    structures = [row["structure"] for row in next(iter(summaries.values()))]
    table = Table("Dice", *structures, box=box.SIMPLE_HEAD, show_edge=False)
    for name, summary in summaries.items():
        table.add_row(name, *(f"{row['mean']:.3f}" for row in summary))
    return table
