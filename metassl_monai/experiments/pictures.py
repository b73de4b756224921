# SPDX-License-Identifier: Apache-2.0
"""Pictures of a few cases as each row of an experiment segments them (MetaSSL, Fig. 4 to 6)."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from metassl_monai.apps.evaluate import load_prediction
from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import run_bundle
from metassl_monai.data import load_datalist, prediction_path, read_datalist, read_label, read_scan, write_datalist
from metassl_monai.data.channels import image_files
from metassl_monai.data.pictures import first_channel
from metassl_monai.files import atomic_write, write_json
from metassl_monai.report import methods_figure

from .definition import Cell, same_runs
from .page import cases_picture

__all__ = ["draw_pictures"]


def draw_pictures(
    cells: Sequence[Cell], dataset_dir: str | Path, out: str | Path, results: str | Path, count: int
) -> None:
    """Segment the first cases with the network of each cell and draw the slice with the largest annotated area.

    One picture for all cells of the same labeled number, subset and seed, see
    :func:`metassl_monai.report.cases_picture`: a row a case, one case a subject, in the order of the datalist. The
    columns are the image, the annotation and the prediction of each cell, in the geometry of the image's file.

    Args:
        cells: cells of one experiment that have been run.
        dataset_dir: folder of the data set's release.
        out: folder of the runs. Predictions go into each run's ``predictions`` and are not made twice.
        results: folder of the results; a cell whose result was copied from another experiment has that one's network.
        count: number of cases; fewer where the split has fewer subjects.

    Raises:
        UserError: when a network is missing, the split has no case, or the inference fails.
    """
    groups: dict[tuple[int, str, int], list[_Run]] = defaultdict(list)
    for cell in cells:
        run = _Run(cell, _run_folder(cell, Path(out), Path(results)))
        groups[cell.labeled, cell.subset, cell.seed].append(run)
    _refuse_missing([run.network for runs in groups.values() for run in runs])
    for (labeled, subset, seed), runs in groups.items():
        figure = _draw(runs, Path(dataset_dir), count)
        picture = cases_picture(results, runs[0].cell.experiment, labeled, subset, seed)
        with atomic_write(picture, "wb") as target:
            figure.savefig(target, format="png", dpi=110)
        sys.stdout.write(f"drew {picture}\n")


class _Run(NamedTuple):
    """A cell and the folder of its run."""

    cell: Cell
    folder: Path

    @property
    def network(self) -> Path:
        return self.folder / "models" / "model.pt"


def _run_folder(cell: Cell, out: Path, results: Path) -> Path:
    own = out / cell.experiment / cell.name
    others = (out / experiment / cell.name for experiment, _ in same_runs(cell, results))
    return next((folder for folder in chain([own], others) if _Run(cell, folder).network.is_file()), own)


def _refuse_missing(networks: Iterable[Path]) -> None:
    missing = [f"  {network}" for network in networks if not network.is_file()]
    if missing:
        remedy = "Give the --out that the results came from, or another --results to train them anew."
        raise UserError("\n".join(["No pictures: these networks are missing.", *missing, remedy]))


def _draw(runs: Sequence[_Run], dataset_dir: Path, count: int) -> Figure:
    cell, datalist = runs[0].cell, _first_cases(runs[0], count)
    content, items = read_datalist(datalist), load_datalist(datalist, cell.split, dataset_dir)
    images = [item["image"] for item in items]
    files = {run.cell.row: _segment(run, datalist, dataset_dir, images) for run in runs}
    planes = [_planes(item, content, of_case) for item, *of_case in zip(items, *files.values(), strict=True)]
    drawn, *maps = zip(*planes, strict=True)
    columns = dict(zip(["annotation", *files], maps, strict=True))
    title = f"{cell.experiment}: {cell.labeled} labeled, subset {cell.subset}, seed {cell.seed}"
    return methods_figure(drawn, columns, [item["case"] for item in items], title, content["labels"])


def _first_cases(run: _Run, count: int) -> Path:
    """Write a datalist whose split has the first case of each of the first subjects."""
    file = run.folder / "datalist.json"
    content = read_datalist(file)
    first: dict[str, Any] = {}
    for item in content[run.cell.split]:
        first.setdefault(item["subject"], item)
    if not first:
        raise UserError(f"{file}: its list {run.cell.split!r} is empty: name another split in the experiment.")
    few = file.with_name(f"{file.stem}_pictures.json")
    write_datalist({**content, run.cell.split: list(first.values())[:count]}, few)
    return few


def _segment(run: _Run, datalist: Path, dataset_dir: Path, images: Iterable[str]) -> list[Path]:
    """Return the predictions of these images, made now where one is missing or older than the network."""
    files = [prediction_path(image, dataset_dir, run.folder / "predictions") for image in images]
    trained = run.network.stat().st_mtime_ns
    if not all(file.is_file() and file.stat().st_mtime_ns >= trained for file in files):
        overrides = run.folder / "inference_overrides.json"
        configs = run.cell.inference_configs()
        write_json(overrides, _known(configs, run.cell.overrides))
        data = ["--dataset_dir", str(dataset_dir), "--datalist", str(datalist), "--split", run.cell.split]
        where = ["--ckpt_path", str(run.network), "--output_dir", str(run.folder)]
        run_bundle("inference", [*configs, overrides], [*data, *where])
    return files


def _known(configs: Iterable[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides whose ids these configs have: most are of the training alone."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in configs])
    return {key: value for key, value in overrides.items() if key.split("::")[0] in parser}


def _planes(item: Mapping[str, str], datalist: Mapping[str, Any], predictions: Iterable[Path]) -> list[np.ndarray]:
    """Return image, annotation and predictions of a case, each ``(X, Y)``, where most is annotated."""
    image = first_channel(read_scan(image_files(item["image"])[0], datalist.get("orientation")))
    truth = read_label(item["label"], datalist)
    volumes = [image, truth, *(load_prediction(file, truth, datalist) for file in predictions)]
    plane: Any = (..., int((truth.numpy() > 0).sum((0, 1)).argmax())) if truth.ndim == 3 else ...
    return [volume.numpy()[plane] for volume in volumes]
