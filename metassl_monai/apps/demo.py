# SPDX-License-Identifier: Apache-2.0
"""The whole way from data to a table of results, on drawn hearts, in minutes on a CPU."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path, config_files, run_bundle
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import make_phantom
from metassl_monai.report import summarize

from .evaluate import evaluate_predictions

__all__ = ["run_demo"]

_BUNDLE = "phantom_segmentation"
_ROWS = {"CPS + MetaSSL": ("cps_metassl", ["train"]), "supervised": ("supervised", ["train", "supervised", "plain"])}


def run_demo(out: Path) -> None:
    """Draw the phantom, train both rows, segment the validation cases and print both results as they came out.

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
    console.print(f"drew 24 hearts in {out / 'data'}, 2 of them labeled for training")
    rows = {name: _run_row(out, datalist, folder, configs) for name, (folder, configs) in _ROWS.items()}
    console.print(_comparison(rows))
    # not through rich, which would break the paths at the terminal's width
    sys.stdout.write(f"""\
Validation Dice of 4 hearts: too few to tell methods apart, enough to see that everything works.
  data         {out / "data"}
  networks     {out}/<row>/models/model.pt
  predictions  {out}/<row>/predictions/images, NIfTI in the geometry of the images
  tables       {out}/<row>/evaluation/cases.csv and metrics.json
  pictures     {out}/<row>/pictures: image, truth, prediction, regions
  MLflow       mlflow ui --backend-store-uri {shlex.quote(f"sqlite:///{out / 'mlruns.db'}")}
""")


def _run_row(out: Path, datalist: Path, folder: str, configs: list[str]) -> list[dict[str, Any]]:
    bundle, data, run = bundle_path(_BUNDLE), datalist.parent, out / folder
    ids = ["--dataset_dir", str(data), "--datalist", str(datalist), "--output_dir", str(run)]
    tracking = ["--tracking", str(bundle / "configs" / "tracking.json")]
    uri = ["--tracking_uri", f"sqlite:///{out.resolve() / 'mlruns.db'}"]
    run_bundle("training", config_files(bundle, configs), [*ids, *tracking, *uri])
    network = ["--ckpt_path", str(run / "models" / "model.pt")]
    run_bundle("inference", config_files(bundle, ["inference"]), [*ids, *network])
    return evaluate_predictions(datalist, data, "validation", run / "predictions", run / "evaluation")


def _comparison(rows: dict[str, list[dict[str, Any]]]) -> Table:
    summaries = {name: [row for row in summarize(cases) if row["metric"] == "dice"] for name, cases in rows.items()}
    structures = [row["structure"] for row in next(iter(summaries.values()))]
    table = Table("Dice", *structures)
    for name, summary in summaries.items():
        table.add_row(name, *(f"{row['mean']:.3f}" for row in summary))
    return table
