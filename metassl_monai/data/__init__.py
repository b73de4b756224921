# SPDX-License-Identifier: Apache-2.0
"""Datalists without leaks, one reader a data set, files in and out, a check of each, and a phantom without download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metassl_monai.late_imports import imported_late

from .abdomenct1k import prepare_abdomenct1k
from .acdc import prepare_acdc
from .brats2019 import prepare_brats2019
from .datalist import load_datalist, names_ignore, read_datalist, validate_datalist, write_datalist
from .digestpath import prepare_digestpath
from .la import prepare_la
from .orientation import reoriented
from .pancreas_ct import prepare_pancreas_ct
from .problems import DatalistError, Problem
from .protocol import is_published

if TYPE_CHECKING:
    from .annotation_box import labeled_box
    from .check import check_datalist, check_images
    from .device_dataset import DeviceDataset
    from .loading import case_loading
    from .phantom import make_phantom
    from .predictions import SavePredictiond, prediction_mistakes, prediction_path
    from .read_ahead import ReadAheadDataLoader
    from .reading import (
        LabelClassesd,
        ScanReader,
        datalist_orientation,
        network_orientation,
        read_label,
        read_scan,
    )
    from .slices import SliceDataset
    from .tiles import TileDataset

__all__ = [
    "READERS",
    "DatalistError",
    "DeviceDataset",
    "LabelClassesd",
    "Problem",
    "ReadAheadDataLoader",
    "SavePredictiond",
    "ScanReader",
    "SliceDataset",
    "TileDataset",
    "case_loading",
    "check_datalist",
    "check_images",
    "datalist_orientation",
    "is_published",
    "labeled_box",
    "load_datalist",
    "make_phantom",
    "names_ignore",
    "network_orientation",
    "prediction_mistakes",
    "prediction_path",
    "prepare_abdomenct1k",
    "prepare_acdc",
    "prepare_brats2019",
    "prepare_digestpath",
    "prepare_la",
    "prepare_pancreas_ct",
    "read_datalist",
    "read_label",
    "read_scan",
    "reoriented",
    "validate_datalist",
    "write_datalist",
]

if not TYPE_CHECKING:
    __getattr__ = imported_late(
        __name__,
        __all__,
        (
            "annotation_box",
            "check",
            "device_dataset",
            "loading",
            "phantom",
            "predictions",
            "read_ahead",
            "reading",
            "slices",
            "tiles",
        ),
    )

READERS: dict[str, Callable[..., dict[str, Any]]] = {
    "abdomenct1k": prepare_abdomenct1k,
    "acdc": prepare_acdc,
    "brats2019": prepare_brats2019,
    "digestpath": prepare_digestpath,
    "la": prepare_la,
    "pancreas_ct": prepare_pancreas_ct,
}
"""The reader of each data set that `metassl prepare` knows: ``reader(source, labeled, seed) -> datalist``.

A reader of a data set without a published validation list also takes ``validation``, the number of cases to hold out;
one without any published list ``train`` and ``test``, likewise; and one with folds ``fold``, counted from 0.
"""
