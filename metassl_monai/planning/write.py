# SPDX-License-Identifier: Apache-2.0
"""A plan becomes a bundle: configs that are complete by themselves, one overlay a method, metadata and a page."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_monai.files import atomic_write
from metassl_monai.recipes import (
    Config,
    bundle_configs,
    format_config,
    lay_upon,
    method_ids,
    methods,
    neutral_training,
    overlay_of,
    part,
)

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

TEMPLATES = {"slices": "acdc", "patches": "brats2019", "tiles": "digestpath"}
"""The data set whose streams, handlers and methods a new bundle takes over."""

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
    source = templates / part(f"data_sets/{TEMPLATES[plan['dimension']]}")["bundle"] / "configs"
    configs = _configs(out, plan, datalist, dataset_dir)
    metadata = json.loads((source / "metadata.json").read_text(encoding="utf-8"))
    for name, config in {**configs, "metadata": _metadata(metadata, plan, datalist)}.items():
        with atomic_write(out / "configs" / f"{name}.json") as file:
            file.write(format_config(config))
    with atomic_write(out / "configs" / "logging.conf") as file:
        file.write((source / "logging.conf").read_text(encoding="utf-8"))
    with atomic_write(out / "docs" / "README.md") as file:
        file.write(bundle_page(out.name, decisions, datalist))


def _configs(out: Path, plan: Mapping[str, Any], datalist: Mapping[str, Any], dataset_dir: Path) -> dict[str, Config]:
    template = TEMPLATES[plan["dimension"]]
    neutral = _planned_training(neutral_training(template), plan, datalist, out, dataset_dir)
    ids = {name: _method(name, template, neutral) for name in methods(template)}
    if plan["method"] not in ids:
        raise PlanError(f"--set method={plan['method']}: no such method: choose one of {', '.join(sorted(ids))}.")
    train = copy.deepcopy(neutral)
    lay_upon(train, ids[plan["method"]])
    overlays = {
        name: {"_desc_": f"The method {name!r}; give it after train.json.", **overlay_of(own, neutral, train)}
        for name, own in ids.items()
    }
    lay_upon(train, _losses(plan["losses"]))  # which an overlay leaves as the plan has them
    shipped = bundle_configs(template)
    inference = _planned_inference(shipped["inference"], train, plan, datalist, out)
    metassl = {"_desc_": "MetaSSL's losses. Give it after the method's overlay."} | _losses("metassl")
    shared = {name: shipped[name] for name in _SHARED}
    return {**overlays, **shared, "metassl": metassl, "train": train, "inference": inference}


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


def _method(name: str, template: str, neutral: Config) -> Config:
    """Return the ids of a method without what the plan decides."""
    ids = {key: value for key, value in method_ids(name, template).items() if key not in _PLANNED}
    if "pretrain" in ids and neutral["optimizer"]["_target_"].endswith("AdamW"):
        ids["pretrain"]["optimizer"] = _adamw("@pretrain::method_def.to(@device)")
    return ids


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
