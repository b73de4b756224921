# SPDX-License-Identifier: Apache-2.0
"""A plan becomes a bundle: configs that are complete by themselves, one overlay a method, metadata and a page."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from metassl_monai.files import atomic_write

from .pages import bundle_page
from .pipelines import (
    inference_postprocessing,
    inferer,
    preprocessing,
    random_transforms,
    stronger_transforms,
    validation_postprocessing,
)
from .plan import Decision, PlanError

__all__ = ["TEMPLATES", "write_bundle"]

Config = dict[str, Any]

TEMPLATES = {
    "slices": "acdc_cardiac_mri_segmentation",
    "patches": "brats2019_mri_segmentation",
    "tiles": "digestpath_pathology_segmentation",
}
"""The bundle whose streams, handlers and methods a new bundle takes over."""

_SHARED = ("device_data", "evaluate", "hidden_labels", "mean_of_two", "monitor", "multi_gpu_train", "plain", "tracking")
_PLANNED = (
    "iterations",
    "labeled_batch_size",
    "unlabeled_batch_size",
    "preset",
    "val_interval",
    "optimizer",
    "lr_scheduler",
)
"""What the overlay of a method leaves to the plan."""
# as nnU-Net, whatever the method's paper has: a short training gains by a rate that falls to 0
_POLYNOMIAL = {
    "_target_": "torch.optim.lr_scheduler.PolynomialLR",
    "optimizer": "@optimizer",
    "total_iters": "$@epochs * @iterations_per_epoch",
    "power": 0.9,
}
_NOT_METHODS = ("train", "inference", "metadata", *_SHARED)


def write_bundle(
    out: Path, templates: Path, decisions: Sequence[Decision], datalist: Mapping[str, Any], dataset_dir: Path
) -> None:
    """Write the configs of a bundle for a data set, beside its ``datalist.json``.

    Args:
        out: the bundle's folder, which holds ``datalist.json``.
        templates: the folder of the bundles that come with the package.
        decisions: see `make_plan`.
        datalist: the content of the datalist.
        dataset_dir: the folder that its paths are relative to.

    Raises:
        PlanError: for a method that has no overlay.
    """
    plan = {decision.name: decision.value for decision in decisions}
    source = templates / TEMPLATES[plan["dimension"]] / "configs"
    neutral = _merged([source / "train.json", *([source / "cps.json"] if plan["dimension"] == "tiles" else [])])
    neutral = _planned_training(neutral, plan, datalist, out, dataset_dir)
    overlays = _overlays(source, neutral)
    if plan["method"] not in overlays:
        raise PlanError(f"--set method={plan['method']}: no such method: choose one of {', '.join(sorted(overlays))}.")
    chosen = [overlays[plan["method"]], _losses(plan["losses"])]
    train = _default(neutral, chosen)
    folder = out / "configs"
    for name, overlay in overlays.items():
        _write(folder / f"{name}.json", _undoing(overlay, neutral, train))
    for name in _SHARED:
        _write(folder / f"{name}.json", _read(source / f"{name}.json"))
    _write(
        folder / "metassl.json",
        {"_desc_": "MetaSSL's losses. Give it after the method's overlay."} | _losses("metassl"),
    )
    _write(folder / "train.json", train)
    _write(folder / "inference.json", _planned_inference(_read(source / "inference.json"), train, plan, datalist, out))
    _write(folder / "metadata.json", _metadata(_read(source / "metadata.json"), plan, datalist))
    with atomic_write(folder / "logging.conf") as file:
        file.write((source / "logging.conf").read_text(encoding="utf-8"))
    with atomic_write(out / "docs" / "README.md") as file:
        file.write(bundle_page(out.name, decisions, datalist))


def _planned_training(
    train: Config, plan: Mapping[str, Any], datalist: Mapping[str, Any], out: Path, dataset_dir: Path
) -> Config:
    train = copy.deepcopy(train)
    train["_desc_"] = f"Trains on {datalist['name']} as plan.json decided; docs/README.md gives the reasons."
    train |= _places(out, dataset_dir) | {"datalist": "$@bundle_root + '/datalist.json'"}
    train |= {"labels": dict(datalist["labels"]), "features": plan["features"], "iterations": plan["iterations"]}
    train |= {"labeled_batch_size": plan["batch_size"], "unlabeled_batch_size": plan["batch_size"]}
    train |= {"keep": plan["keep"], "checked_lists": _checked(datalist), "val_interval": "$max(1, @epochs // 20)"}
    train["iterations_per_epoch"] = "$min(100, @iterations)"
    train["preset"] = "paper"
    train["lr_scheduler"] = _POLYNOMIAL
    if plan["optimizer"] == "adamw":
        train["optimizer"] = _adamw("@method")
    if plan["dimension"] == "tiles":
        if plan["augmentation"] == "strong":
            train["train"]["random_transforms"]["transforms"][-1:-1] = stronger_transforms(plan)
        return train | {"spatial_size": plan["patch_size"], "min_tissue": 0.0}
    train |= _geometry(plan)
    train["network_def"]["in_channels"] = _channels(datalist)
    parts, checks = train["train"], train["validate"]
    whole = "deterministic_transforms" if plan["dimension"] == "patches" else "preprocessing"
    parts[whole] = preprocessing(plan, labels=True, training=True)
    parts["random_transforms"] = random_transforms(plan)
    checks["preprocessing"] = preprocessing(plan, labels=True, training=False)
    checks["inferer"] = inferer(plan)
    checks["postprocessing"] = validation_postprocessing()
    checks["evaluator"]["network"] = "$torch.nn.Sequential(@network, torch.nn.Softmax(dim=1))"
    return train


def _geometry(plan: Mapping[str, Any]) -> Config:
    """Return the ids of sizes; ``spatial_size`` is what pictures and multi-process configs of slices call a patch."""
    flat = plan["dimension"] == "slices"
    return {
        "orientation": plan["orientation"],
        "patch_size": plan["patch_size"],
        "padded_size": "$[*@patch_size, -1]" if flat else "@patch_size",
        "overlap": 0.25,
        "largest_component": plan["largest_component"],
    }


def _planned_inference(
    inference: Config, train: Config, plan: Mapping[str, Any], datalist: Mapping[str, Any], out: Path
) -> Config:
    inference["_desc_"] = "Images in, label maps in the same geometry out. The checks stop before anything is written."
    shared = ("bundle_root", "dataset_dir", "labels", "features", "network_def")
    inference |= {key: train[key] for key in shared}
    if plan["dimension"] == "tiles":
        return inference | {"spatial_size": plan["patch_size"], "image_pattern": "**/*.*"}
    inference |= _geometry(plan)
    inference["orientation"] = f"$metassl_monai.data.network_orientation(@ckpt_path, None, {plan['orientation']!r})"
    inference["image_pattern"] = "**/*.nii*"
    inference["preprocessing"] = preprocessing(plan, labels=False, training=False)
    inference["inferer"] = inferer(plan)
    inference["postprocessing"] = inference_postprocessing()
    if _channels(datalist) > 1:
        inference |= _grouped(datalist, inference)
    inference["evaluator"]["network"] = "$torch.nn.Sequential(@network, torch.nn.Softmax(dim=1))"
    return inference


def _grouped(datalist: Mapping[str, Any], inference: Config) -> Config:
    """Return what finds images of several files, one a channel, and checks that each has all channels."""
    cases = "metassl_monai.planning.image_cases([Path(@dataset_dir)], @endings)"
    count = _channels(datalist)
    return {
        "imports": [*inference["imports"], "$import metassl_monai.planning", "$from pathlib import Path"],
        "endings": datalist["source"].get("endings", []),
        "found_images": f"$[] if @datalist else [list(map(str, case.images)) for case in {cases}]",
        "checks": [check.replace("@check_data)", f"@check_data, channels={count})") for check in inference["checks"]],
    }


def _overlays(source: Path, neutral: Config) -> dict[str, Config]:
    """Return the methods' overlays without what the plan decides."""
    overlays = {}
    for file in sorted(source.glob("*.json")):
        content = _read(file)
        if file.stem in _NOT_METHODS or "method_def" not in content or file.stem.startswith("ref_"):
            continue
        kept = {key: value for key, value in content.items() if key not in _PLANNED and key != "first_stage"}
        kept["_desc_"] = f"The method {file.stem!r}; give it after train.json."
        if "pretrain" in content:
            kept["first_stage"] = content["first_stage"]
            if neutral["optimizer"]["_target_"].endswith("AdamW"):
                kept["pretrain"] = {**content["pretrain"], "optimizer": _adamw("@pretrain::method_def.to(@device)")}
        overlays[file.stem] = kept
    return overlays


def _default(neutral: Config, overlays: Sequence[Config]) -> Config:
    parser = ConfigParser(copy.deepcopy(neutral))
    for overlay in overlays:
        for key, value in overlay.items():
            if key != "_desc_":
                parser.set(copy.deepcopy(value), key, True)
    return dict(parser.get())


def _undoing(overlay: Config, neutral: Config, train: Config) -> Config:
    """Begin an overlay with what the default method has changed and it does not say itself."""
    changed = {key: value for key, value in neutral.items() if train[key] != value and key not in overlay}
    changed = {key: value for key, value in changed.items() if key not in ("labeled_loss", "unlabeled_loss", "preset")}
    return {"_desc_": overlay["_desc_"], **changed, **overlay}  # first, since an overlay may change a part of it


def _losses(kind: str) -> Config:
    if kind == "plain":
        return {"preset": "plain", "labeled_loss": "@own_labeled_loss", "unlabeled_loss": "@own_unlabeled_loss"}
    return {"preset": "paper", "labeled_loss": "$@metassl_losses[0]", "unlabeled_loss": "$@metassl_losses[1]"}


def _places(out: Path, dataset_dir: Path) -> Config:
    return {"bundle_root": str(out.resolve()), "dataset_dir": str(dataset_dir.resolve())}


def _adamw(module: str) -> Config:
    trained = f"$[p for p in {module}.parameters() if p.requires_grad]"
    return {"_target_": "torch.optim.AdamW", "params": trained, "lr": 0.002, "weight_decay": 0.0001}


def _checked(datalist: Mapping[str, Any]) -> list[str]:
    return [key for key in ("labeled", "unlabeled", "validation") if datalist[key]]


def _channels(datalist: Mapping[str, Any]) -> int:
    return len(datalist.get("channels", ())) or 1


def _metadata(metadata: Config, plan: Mapping[str, Any], datalist: Mapping[str, Any]) -> Config:
    names = ", ".join(f"{value} {name}" for value, name in datalist["labels"].items())
    structures = ", ".join(list(datalist["labels"].values())[1:])
    metadata |= {"name": str(datalist["name"]), "version": "0.1.0", "changelog": {"0.1.0": "Made from a plan"}}
    metadata |= {"task": f"Segmentation of {structures}", "label_classes": names, "pred_classes": names}
    metadata |= {"description": f"Segments {structures}", "data_source": str(datalist["name"]), "authors": "its makers"}
    metadata |= {"copyright": "Copyright (c) its makers", "image_classes": "as in the training data"}
    metadata["references"] = metadata["references"][:1]
    shapes, classes = metadata["network_data_format"], len(datalist["labels"])
    image, prediction = shapes["inputs"]["image"], shapes["outputs"]["pred"]
    image |= {"spatial_shape": plan["patch_size"], "modality": plan["modality"].upper(), "value_range": []}
    prediction |= {
        "spatial_shape": plan["patch_size"],
        "num_channels": classes,
        "channel_def": dict(datalist["labels"]),
    }
    if plan["dimension"] != "tiles":
        channels = datalist.get("channels") or ["image"]
        image |= {"num_channels": len(channels), "channel_def": {str(i): name for i, name in enumerate(channels)}}
    return metadata


def _merged(files: Sequence[Path]) -> Config:
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    return dict(parser.get())


def _read(file: Path) -> Config:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write(file: Path, content: Config) -> None:
    with atomic_write(file) as target:
        json.dump(content, target, indent=4)
        target.write("\n")
