# SPDX-License-Identifier: Apache-2.0
"""The configs of a bundle, put together from what all bundles, its dimension, its data set and a method say."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from .parts import Config, lay_upon, methods, part

__all__ = ["bundle_configs", "method_ids", "neutral_training", "overlay_of"]

OF_ALL = ("device_data", "evaluate", "hidden_labels", "monitor", "multi_gpu_train", "plain", "tracking")
"""Overlays that every bundle has, beside those of its methods."""
_STAGE = "Its first stage, run id 'pretraining', runs by itself where pretrained_path is absent."
_PARALLEL = "torch.nn.parallel.DistributedDataParallel"


def bundle_configs(data_set: str) -> dict[str, Config]:
    """Return the configs of the bundle of a data set by their names without ``.json``; written by hand are others.

    Example:
        >>> configs = bundle_configs("acdc")
        >>> configs["train"]["method_name"], configs["mean_teacher"]["method_name"]
        ('cps', 'mean_teacher')
    """
    about = part(f"data_sets/{data_set}")
    neutral = neutral_training(data_set)
    train = copy.deepcopy(neutral)
    lay_upon(train, method_ids(about["default"], data_set))
    configs = {"train": {"_desc_": about["train"]["_desc_"], **train}, "inference": _composed("inference", data_set)}
    for name in methods(data_set):
        configs[name] = {
            "_desc_": _description(name, data_set),
            **overlay_of(method_ids(name, data_set), neutral, train),
        }
    for name in (*OF_ALL, *_of_dimension(about["dimension"])):
        configs[name] = _composed(name, data_set)
    if "paper_strides" in about:
        configs["paper_strides"] = _composed("paper_strides", data_set)
    configs["tracking"]["configs"]["experiment_name"] = about["bundle"]
    return configs


def neutral_training(data_set: str) -> Config:
    """Return the training config of a data set without a method: what each overlay of a method builds on."""
    return _composed("train", data_set)


def method_ids(name: str, data_set: str) -> Config:
    """Return the ids that a method sets on a data set."""
    recipe, about = part(f"methods/{name}"), part(f"data_sets/{data_set}")
    dimension = about["dimension"]
    ids: Config = {"method_name": name}
    for key in ("ids", "3D" if dimension == "patches" else "2D", dimension):
        lay_upon(ids, recipe.get(key, {}))
    lay_upon(ids, about["methods"].get(name, {}))
    ids.pop("_desc_", None)
    stage = ids.pop("first_stage", None)
    ids["method_def"] = _method(ids["method_def"], "@labeled_loss", "@unlabeled_loss")
    return ids if stage is None else {**ids, **_first_stage(stage, neutral_training(data_set)["optimizer"])}


def overlay_of(ids: Config, neutral: Config, train: Config) -> Config:
    """Return a method's overlay: first what the default method of ``train`` has changed and these ids do not set."""
    own = {key.partition("::")[0] for key, value in ids.items() if "::" not in key}
    undone = {key: value for key, value in neutral.items() if train[key] != value and key not in own}
    return {**{key: value for key, value in undone.items() if key not in ("_desc_", "method_name")}, **ids}


def _composed(name: str, data_set: str) -> Config:
    about = part(f"data_sets/{data_set}")
    config: Config = copy.deepcopy(part("common").get(name, {}))
    known = list(config)
    for changes in (part(about["dimension"]), about):
        lay_upon(config, changes.get(name, {}))
    return _in_reading_order(config, known) if "num_classes" in known else config


def _in_reading_order(config: Config, known: list[str]) -> Config:
    """Put what a data set adds where its labels are looked for, and what images go through before what uses it."""
    added = [key for key in config if key not in known and key != "_desc_"]
    place = known.index("num_classes")
    order = ("_desc_", *known[:place], *added, *known[place:])
    stages = ("deterministic_transforms", "random_transforms", "preprocessing", "dataset")
    ordered = {key: config[key] for key in order if key in config}
    for key in {"train", "validate"} & ordered.keys():
        section = ordered[key]
        ordered[key] = {name: section[name] for name in dict.fromkeys((*stages, *section)) if name in section}
    return ordered


def _of_dimension(dimension: str) -> Iterator[str]:
    yield "mean_of_two"
    if dimension == "patches":
        yield "dualnet_inference"


def _method(
    arguments: Mapping[str, Any], labeled_loss: str, unlabeled_loss: str, network: str = "@network_def"
) -> Config:
    """Return the definition of a method: its networks first, then what all methods take, then what it alone takes."""
    target, second = arguments["_target_"], arguments.get("second_network")
    shared = {"labeled_loss": labeled_loss, "unlabeled_loss": unlabeled_loss, "ramp": "@ramp"}
    networks = {"network": network} | ({} if second is None else {"second_network": second})
    own = {key: value for key, value in arguments.items() if key not in ("_target_", "second_network")}
    return {"_target_": target, **networks, **shared, **own}


def _first_stage(stage: Mapping[str, Any], optimizer: Config) -> Config:
    """Return the ids of a first stage: how it trains, and what the second takes over from it."""
    ids: Config = part("common")["first_stage"]
    ids["pretrain_iterations"] = stage.get("iterations", ids["pretrain_iterations"])
    ids["pretrain"]["method_def"] = _method(stage["method"], "@own_labeled_loss", "@own_unlabeled_loss", "%network_def")
    parameters = {"params": "$@pretrain::method_def.to(@device).parameters()"}
    ids["pretrain"]["optimizer"] = stage.get("optimizer", optimizer) | parameters
    ids["first_stage"][1] = f"$start_from(@pretrained_path, {stage['starts']})"
    return ids


def _description(name: str, data_set: str) -> str:
    recipe, about = part(f"methods/{name}"), part(f"data_sets/{data_set}")
    text = about["methods"].get(name, {}).get("_desc_") or recipe.get("about")
    if text is None and "table" in about:
        row = recipe["row"]
        text = f"{recipe['title']} with MetaSSL ('{row} + MetaSSL', {about['table']}); with plain.json the row '{row}'."
    elif text is None:
        text = f"{recipe['title']} with MetaSSL. No paper reports the pair on this data set; {about['note']}."
    stage = [_STAGE] if "first_stage" in recipe["ids"] else []
    return " ".join([text, *stage, *([recipe["after"]] if "after" in recipe else [])])
