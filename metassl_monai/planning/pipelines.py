# SPDX-License-Identifier: Apache-2.0
"""The parts of a bundle's configs that a plan decides: what happens to an image before and after the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "inferer",
    "inference_postprocessing",
    "preprocessing",
    "random_transforms",
    "stronger_transforms",
    "validation_postprocessing",
]

Config = dict[str, Any]
_BOTH = ["image", "label"]
_OPTIONAL = {"allow_missing_keys": True}
_AXES = [["L", "R"], ["P", "A"], ["I", "S"]]
_ENTROPY = "$lambda p: -(p * p.clamp_min(1e-8).log()).sum(0, keepdim=True)"


def preprocessing(plan: Mapping[str, Any], labels: bool, training: bool) -> Config:
    """Return the deterministic transforms of a volume, channel first.

    Args:
        plan: value by name of a decision.
        labels: whether there may be annotations. In validation they stay as they are stored.
        training: whether annotations go along and metadata may be dropped.
    """
    keys: Any = _BOTH if training else "image"
    more = _OPTIONAL if training else {}
    loading: Config = {"_target_": "metassl_monai.data.case_loading", "keys": _BOTH if labels else "image"}
    loading |= {"datalist": "@datalist"} if labels else {}
    steps: list[Config] = [{**loading, "orientation": "@orientation", **more}]
    if plan["target_spacing"]:
        pixdim = [step or -1 for step in plan["target_spacing"]]
        mode: Any = ["bilinear", "nearest"] if training else "bilinear"
        steps.append({"_target_": "Spacingd", "keys": keys, "pixdim": pixdim, "mode": mode, **more})
    if plan["crop"]:
        crop = {"_target_": "CropForegroundd", "keys": keys, "source_key": "image", "select_fn": "$torch.Tensor.bool"}
        steps.append({**crop, "allow_smaller": True, **more})
    steps += _intensity(plan)
    if training:
        pad = {"_target_": "SpatialPadd", "keys": _BOTH, "spatial_size": "@padded_size", **more}
        typed = {"_target_": "EnsureTyped", "keys": _BOTH, "dtype": "$torch.float32", "track_meta": False, **more}
        steps += [pad, typed, {"_target_": "SelectItemsd", "keys": _BOTH, **more}]
    elif labels:
        steps.append({"_target_": "EnsureTyped", "keys": _BOTH})
    else:
        steps.append({"_target_": "EnsureTyped", "keys": "image", "device": "@device"})
    return _compose(steps)


def random_transforms(plan: Mapping[str, Any]) -> Config:
    """Return the random transforms of a slice or patch: a crop, turns and flips in the plane, small rotations."""
    steps: list[Config] = [
        {"_target_": "RandSpatialCropd", "keys": _BOTH, "roi_size": "@patch_size", "random_size": False, **_OPTIONAL},
        {"_target_": "RandFlipd", "keys": _BOTH, "prob": 0.5, "spatial_axis": 0, **_OPTIONAL},
    ]
    if plan["patch_size"][0] == plan["patch_size"][1]:
        steps.append({"_target_": "RandRotate90d", "keys": _BOTH, "prob": 0.75, **_OPTIONAL})
    if plan["augmentation"] == "strong":
        steps += stronger_transforms(plan)
    elif plan["dimension"] == "slices":
        angle, mode = "$20 * 3.141592653589793 / 180", ["bilinear", "nearest"]
        turn = {"_target_": "RandRotated", "keys": _BOTH, "prob": 0.25, "range_x": angle, "mode": mode}
        steps.append({**turn, "padding_mode": "zeros", **_OPTIONAL})
    return _compose([*steps, {"_target_": "EnsureTyped", "keys": _BOTH, "track_meta": False, **_OPTIONAL}])


def stronger_transforms(plan: Mapping[str, Any]) -> list[Config]:
    """Return what turns, stretches, brightens, blurs and disturbs more than the papers do; nnU-Net's kinds."""
    flat = plan["dimension"] != "patches"
    turn = 3.141592653589793 if flat and plan["patch_size"][0] == plan["patch_size"][1] else 0.35
    blur = {f"sigma_{axis}": [0.3, 1.0] for axis in ("xy" if flat else "xyz")}
    move = {"prob": 0.9, "rotate_range": turn if flat else [turn] * 3, "scale_range": 0.25 if flat else [0.25] * 3}
    # beyond the border there is no background: an image and its annotation both repeat their last voxel
    mode = {"mode": ["bilinear", "nearest"], "padding_mode": "border"}
    return [
        {"_target_": "RandAffined", "keys": _BOTH, **move, **mode, **_OPTIONAL},
        {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 0.5, "gamma": [0.5, 1.8]},
        {"_target_": "RandGaussianSmoothd", "keys": "image", "prob": 0.2, **blur},
        {
            "_target_": "RandGaussianNoised",
            "keys": "image",
            "prob": 0.3,
            "std": 0.15 if plan["modality"] == "mr" else 0.05,
        },
    ]


def inferer(plan: Mapping[str, Any]) -> Config:
    """Return what segments a whole volume by windows of the patch's size."""
    if plan["dimension"] == "slices":
        # on a CPU a batch of slices outgrows the cache and takes longer than slice by slice
        batch = "$16 if 'cuda' in str(@device) else 1"
        windows = {"_target_": "SliceInferer", "roi_size": "@patch_size", "sw_batch_size": batch, "spatial_dim": 2}
    else:
        windows = {"_target_": "SlidingWindowInferer", "roi_size": "@patch_size", "sw_batch_size": 4}
        windows["cache_roi_weight_map"] = True
    return {**windows, "overlap": "@overlap", "mode": "gaussian"}


def validation_postprocessing() -> Config:
    """Return what makes labels of probabilities in the geometry of the annotation's file."""
    turn = {"_target_": "Orientationd", "_disabled_": "$not @orientation", "keys": "pred", "axcodes": "@orientation"}
    return _compose([_inverted("@validate::preprocessing"), {**turn, "labels": _AXES}, *_labels()])


def inference_postprocessing() -> Config:
    """Return what makes files of probabilities: labels, and on request the probabilities and their entropy."""
    copy = {"_target_": "CopyItemsd", "_disabled_": "$not @save_uncertainty", "keys": "pred", "names": "uncertainty"}
    entropy = {"_target_": "Lambdad", "_disabled_": "$not @save_uncertainty", "keys": "uncertainty", "func": _ENTROPY}
    maps = {"output_dtype": "$torch.float32"}
    return _compose(
        [
            _inverted("@preprocessing"),
            copy,
            entropy,
            _saved("uncertainty", _disabled_="$not @save_uncertainty", output_postfix="uncertainty", **maps),
            _saved("pred", _disabled_="$not @save_probabilities", output_postfix="probabilities", **maps),
            *_labels(),
            _saved("pred"),
        ]
    )


def _intensity(plan: Mapping[str, Any]) -> list[Config]:
    if plan["modality"] == "ct":
        low, high = plan["window"]
        scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": low, "a_max": high}
        return [{**scale, "b_min": 0.0, "b_max": 1.0, "clip": True}]
    clip = {"_target_": "ClipIntensityPercentilesd", "keys": "image", "lower": 0.5, "upper": 99.5}
    normalize = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": plan["crop"], "channel_wise": True}
    return [{**clip, "channel_wise": True}, normalize]


def _inverted(transform: str) -> Config:
    invert = {"_target_": "Invertd", "keys": "pred", "transform": transform, "orig_keys": "image"}
    return {**invert, "nearest_interp": False, "to_tensor": True}


def _labels() -> list[Config]:
    largest = {"_target_": "KeepLargestConnectedComponentd", "_disabled_": "$not @largest_component", "keys": "pred"}
    classes = "$list(range(1, @num_classes))"
    return [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {**largest, "applied_labels": classes, "is_onehot": False},
    ]


def _saved(key: str, **more: Any) -> Config:
    places = {"output_dir": "$@output_dir + '/predictions'", "data_root_dir": "@dataset_dir"}
    return {"_target_": "metassl_monai.data.SavePredictiond", "keys": key, **places, **more}


def _compose(transforms: list[Config]) -> Config:
    return {"_target_": "Compose", "transforms": transforms}
