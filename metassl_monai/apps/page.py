# SPDX-License-Identifier: Apache-2.0
"""The page of a bundle or a training: what was decided, trained and reached, and how to go on."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import run_bundle
from metassl_monai.bundle.writable import check_writable_file
from metassl_monai.data import DatalistError
from metassl_monai.data.datalist import parse_json
from metassl_monai.data.datalist_structure import LISTS
from metassl_monai.files import nan_for_null
from metassl_monai.report import history_figure, read_history
from metassl_monai.report.page import Picture, Section, figure_picture, file_picture, write_page

__all__ = ["write_report"]

_SETTINGS = {
    "method_name": "method",
    "preset": "losses (preset)",
    "iterations": "iterations",
    "labeled_batch_size": "labeled images a step",
    "unlabeled_batch_size": "unlabeled images a step",
    "patch_size": "patch, in voxels",
    "spatial_size": "size of a slice or tile, in pixels",
    "seed": "seed",
    "keep": "network that is kept",
    "device": "device",
}
_METRICS = {"dice": "Dice", "jaccard": "Jaccard", "hd95_mm": "HD95 (mm)", "asd_mm": "ASD (mm)"}
_CAPTIONS = {
    "epoch": "Labeled training images of the last pictured epoch: image, annotation, prediction, regions of the loss",
    "unlabeled": "Unlabeled images of the last pictured epoch, with hidden annotations that no training reads",
    "regions_over_training": "One unlabeled image over the training",
    "counts": "Voxels of each region over the epochs",
    "thresholds": "Confidence thresholds of each class over the epochs",
    "accuracy": "Correct references in each region over the epochs",
    "pseudo_labels": "Dice of the pseudo-labels of unlabeled images over the epochs",
}


def write_report(source: Path, out: Path | None = None) -> Path:
    """Write the page of a bundle, or of the output folder of a training, as one HTML file that needs no other.

    Where a trained bundle has validation cases and no ``evaluation_validation`` yet, its ``evaluating`` is run first.

    Args:
        source: the folder.
        out: the file; ``report.html`` in the folder if left out.

    Returns:
        The file.

    Raises:
        UserError: when the folder is neither a bundle nor of a training, or ``out`` cannot be written to.
    """
    if not any((source / name).exists() for name in ("configs/train.json", "history.csv", "plan.json")):
        raise UserError(f"{source}: is neither a bundle nor the output folder of a training: correct the path.")
    out = source / "report.html" if out is None else out
    check_writable_file(out)
    config = _config_that_ran(source)
    table = _validation(source, config)
    sections = [*_decisions(source), *_data(source), _training(source, config), *_curves(source), table]
    name = source.resolve().name
    write_page(out, f"Segmentation: {name}", [*sections, *_pictures(source), _next(source)])
    sys.stdout.write(f"wrote {out}\n")
    return out


def _config_that_ran(source: Path) -> Path | None:
    return max(source.glob("config_*.json"), key=lambda file: file.stat().st_mtime, default=None)


def _decisions(source: Path) -> Iterator[Section]:
    file = source / "plan.json"
    if file.is_file():
        rows = [(it["name"], _text(it["value"]), str(it["reason"])) for it in parse_json(file)["decisions"]]
        yield Section("What was decided, and why", header=("decision", "value", "reason"), rows=rows)


def _data(source: Path) -> Iterator[Section]:
    file = source / "datalist.json"
    if file.is_file():
        content = parse_json(file)
        names = ", ".join(f"{value} {name}" for value, name in content["labels"].items())
        lists = {key: content[key] for key in LISTS if content[key]}
        subjects = {key: len({item["subject"] for item in items}) for key, items in lists.items()}
        rows = [(key, str(len(items)), str(subjects[key])) for key, items in lists.items()]
        yield Section("The data", [f"Classes: {names}."], ("list", "cases", "subjects"), rows)


def _training(source: Path, config: Path | None) -> Section:
    title = "What was trained"
    if config is None:
        return Section(title, ["Nothing yet, or the training left no config_*.json here."])
    ran = ConfigParser.load_config_file(config)
    rows = [(label, _text(ran[name])) for name, label in _SETTINGS.items() if name in ran]
    history = _history(source)
    if history:
        rows.append(("iterations done", f"{history['iteration'][-1]:.0f} in {len(history['epoch'])} epochs"))
        scores = [value for value in history.get("val_mean_dice", ()) if not math.isnan(value)]
        rows += [("best mean Dice in validation", f"{max(scores):.3f}")] if scores else []
    rows.append(("all settings", config.name))
    return Section(title, header=("setting", "value"), rows=rows)


def _curves(source: Path) -> Iterator[Section]:
    history = _history(source)
    pictures = []
    for prefix, caption, unit in (("loss", "Losses", "loss"), ("val_*dice", "Dice of the validation cases", "Dice")):
        if any(re.match(prefix.replace("*", ".*"), name) for name in history):
            last = ", ".join(f"{name} {history[name][-1]:.3g}" for name in ("loss", "val_mean_dice") if name in history)
            alt = f"{caption} over {len(history['epoch'])} epochs; in the last one: {last}"
            pictures.append(
                figure_picture(history_figure(history, prefix, "", unit), alt, f"{caption} over the epochs")
            )
    if pictures:
        yield Section("How the training went", pictures=pictures)


def _validation(source: Path, config: Path | None) -> Section:
    title = "Validation"
    file = source / "evaluation_validation" / "metrics.json"
    model = source / "models" / "model.pt"
    known = file.is_file() and not (model.is_file() and model.stat().st_mtime > file.stat().st_mtime)
    reason = None if known else _evaluate(source, config)
    if reason:
        return Section(title, [reason])
    summary = nan_for_null(json.loads(file.read_text(encoding="utf-8"))["summary"])
    cells = {(it["structure"], it["metric"]): it for it in summary}
    structures = dict.fromkeys(it["structure"] for it in summary)
    shown = {name: label for name, label in _METRICS.items() if any(it["metric"] == name for it in summary)}
    rows = [(structure, *(_interval(cells[structure, name]) for name in shown)) for structure in structures]
    subjects = max(it["subjects"] for it in summary)
    text = f"Mean over {subjects} subjects with its 95 % interval; a structure that was missed has no distance."
    return Section(title, [text], ("structure", *shown.values()), rows)


def _evaluate(source: Path, config: Path | None) -> str | None:
    """Score the network on the validation cases; return why that is not possible."""
    evaluate = source / "configs" / "evaluate.json"
    if config is None or not (source / "models" / "model.pt").is_file():
        return "Not possible yet: there is no trained network."
    parser = ConfigParser()
    parser.read_config([str(config)])
    try:
        if not parse_json(parser.get_parsed_content("datalist"))["validation"]:
            return "No case is held out for validation, so the quality of the network is not known."
        if not evaluate.is_file():
            return "Not evaluated yet: run `evaluating` with the bundle's evaluate.json."
        about = ["--meta_file", str(evaluate.with_name("metadata.json"))]
        about += ["--logging_file", str(evaluate.with_name("logging.conf"))]
        run_bundle("evaluating", [config, evaluate], ["--output_dir", str(source), *about])
    except (UserError, DatalistError) as error:
        return f"The evaluation failed ({error}): run it by itself to see why."
    return None


def _pictures(source: Path) -> Iterator[Section]:
    last = {re.sub(r"_\d+$", "", file.stem): file for file in sorted((source / "pictures").glob("*.png"))}
    pictures = [_picture(file, _CAPTIONS.get(kind, kind.replace("_", " "))) for kind, file in last.items()]
    if pictures:
        yield Section("Pictures of the training", pictures=pictures)


def _picture(file: Path, caption: str) -> Picture:
    return file_picture(file, alt=f"{caption} ({file.name})", caption=caption)


def _next(source: Path) -> Section:
    name, checkpoint = shlex.quote(str(source)), ""
    if not (source / "configs" / "inference.json").is_file():
        name, checkpoint = "BUNDLE", f" --checkpoint {shlex.quote(str(source / 'models' / 'model.pt'))}"
    if not (source / "models" / "model.pt").is_file():
        return Section("How to go on", commands=[f"metassl train {name}"])
    commands = [
        f"metassl infer {name} --images NEW_SCANS --out PREDICTIONS{checkpoint}",
        f"metassl suggest {name} --out annotate_next.csv{checkpoint}",
    ]
    text = ["Segment new images; and find out which unlabeled cases are worth annotating next."]
    return Section("How to go on", text, commands=commands)


def _history(source: Path) -> dict[str, list[float]]:
    file = source / "history.csv"
    return read_history(file) if file.is_file() else {}


def _interval(entry: Mapping[str, Any]) -> str:
    note = f" ({entry['nan']} without a value)" if entry["nan"] else ""
    spread = "" if math.isnan(entry["low"]) else f" [{entry['low']:.3f}, {entry['high']:.3f}]"
    return f"no value{note}" if math.isnan(entry["mean"]) else f"{entry['mean']:.3f}{spread}{note}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        device = re.fullmatch(r"\$torch\.device\('([^']*)'(.*)\)", value)
        return value if device is None else f"{device[1]}, or the CPU where there is none" if device[2] else device[1]
    if isinstance(value, Sequence):
        return " x ".join(map(str, value)) if all(isinstance(it, int | float) for it in value) else json.dumps(value)
    return json.dumps(value)
