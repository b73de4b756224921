# SPDX-License-Identifier: Apache-2.0
"""Raw label values: what a datalist may say of them, and how they become classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import RandCropByLabelClassesd

from metassl_monai.data import DatalistError, validate_datalist
from metassl_monai.data.label_values import label_classes
from metassl_monai.ignore import IGNORE


def _datalist(label_values: Any) -> dict[str, Any]:
    item = {"image": "a.nrrd", "label": "b.nrrd", "subject": "a", "case": "a"}
    empty: dict[str, list[Any]] = {key: [] for key in ("unlabeled", "validation", "test", "monitor")}
    labels = {"0": "background", "1": "heart", "2": "vessel"}
    return {"labels": labels, "label_values": label_values, "labeled": [item], **empty}


@pytest.mark.parametrize("values", [{"0": 0, "1": 1, "2": 2}, {"-1000": 0, "255": 2, "127": 1, "3": 0}])
def test_sound_values_pass(values: dict[str, int]) -> None:
    validate_datalist(_datalist(values), "la.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255], "not an object of class numbers"),
        (None, "not an object of class numbers"),
        ({"0": 0, "1": 1, "2": "2"}, "not an object of class numbers"),
        ({"0": 0, "1": True, "2": 2}, "not an object of class numbers"),
        ({"0": 0, "1.5": 1, "2": 2}, "keys that are not whole numbers: 1.5"),
        ({"0": 0, "01": 1, "2": 2}, "keys that are not whole numbers: 01"),
        ({"0": 0, "-": 1, "": 2}, "keys that are not whole numbers: -, "),
        ({"0": 0, "255": 1}, "leads to 0, 1, but the classes are 0, 1, 2"),
        ({"0": 0, "1": 1, "2": 2, "3": 3}, "leads to 0, 1, 2, 3, but"),
        ({}, "leads to , but"),
    ],
)
def test_malformed_values_are_refused(values: Any, message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        validate_datalist(_datalist(values), "la.json")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_mapping_may_permute_and_merge(dtype: type) -> None:
    label = np.array([[0, 1, 2], [100, 2, 1]], dtype)
    mapped = label_classes(label, _datalist({"0": 0, "1": 2, "2": 1, "100": 2}), "a.nii.gz")
    assert mapped.tolist() == [[0, 2, 1], [2, 1, 2]]
    assert label.tolist() == [[0, 1, 2], [100, 2, 1]]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 8, 7], r"a\.nii: label values 7, 8 are not in `label_values` \(0, 255\)"),
        ([0, 254.5], "a.nii: label values are not integers"),
    ],
)
def test_values_without_a_class_are_refused(label: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_classes(np.array(label), _datalist({"0": 0, "255": 1}), "a.nii")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0, 1, IGNORE, 2]),
        ({"label_values": {"0": 2, "1": 1, "2": 0}}, [2, 1, IGNORE, 0]),
        ({"label_threshold": 1.5}, [0, 0, IGNORE, 1]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_the_value_that_a_datalist_ignores_is_no_class(fields: Any, expected: list[int], dtype: type) -> None:
    datalist = {"labels": {"0": "background", "1": "a", "2": "b"}, "ignore": 255, **fields}
    label = np.array([0, 1, 255, 2], dtype)
    assert label_classes(label, datalist, "a.nii").tolist() == expected
    if "label_threshold" not in fields:
        with pytest.raises(ValueError, match="label values 254 are not in"):
            label_classes(np.array([0, 254, 255], dtype), datalist, "a.nii")


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        ("255", "`ignore` is '255', not a whole number"),
        (True, "`ignore` is True, not a whole number"),
        (254.5, "`ignore` is 254.5, not a whole number"),
        (None, "`ignore` is None, not a whole number"),
        (7, "`ignore` is 7, which is also the value of a class"),
    ],
)
def test_wrong_values_to_ignore_are_refused(ignore: Any, message: str) -> None:
    values = {"0": 0, "1": 1, "7": 2}
    with pytest.raises(DatalistError, match=message):
        validate_datalist({**_datalist(values), "ignore": ignore}, "la.json")
    validate_datalist({**_datalist(values), "ignore": 2}, "la.json")


def test_patches_drawn_by_class_lie_where_somebody_annotated() -> None:
    label = torch.full((1, 9, 9), float(IGNORE))
    label[0, 2, 2], label[0, 6, 6] = 0, 1
    crop = RandCropByLabelClassesd("label", "label", spatial_size=(3, 3), num_classes=2, num_samples=8)
    patches = crop.set_random_state(seed=0)({"label": label})
    centers = [patch["label"][0, 1, 1].item() for patch in patches]
    assert set(centers) == {0, 1}


def test_without_a_mapping_raw_values_are_the_classes() -> None:
    datalist = {"labels": {"0": "background", "1": "a", "2": "b"}}
    assert label_classes(np.array([0.0, 2.0]), datalist, "a.nii").tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"label values 3 are not in `labels` \(0 to 2\)"):
        label_classes(np.array([0, 3]), datalist, "a.nii")
