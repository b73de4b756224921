# SPDX-License-Identifier: Apache-2.0
"""Datalists without leaks, one reader a data set, a check of every file, and a phantom that needs no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .acdc import prepare_acdc
from .check import Problem, check_datalist, check_images
from .datalist import DatalistError, load_datalist, read_datalist, validate_datalist, write_datalist
from .heart_box import labeled_box
from .la import prepare_la
from .label_values import map_label_values
from .phantom import make_phantom
from .slices import SliceDataset

__all__ = [
    "READERS",
    "DatalistError",
    "Problem",
    "SliceDataset",
    "check_datalist",
    "check_images",
    "labeled_box",
    "load_datalist",
    "make_phantom",
    "map_label_values",
    "prepare_acdc",
    "prepare_la",
    "read_datalist",
    "validate_datalist",
    "write_datalist",
]

READERS: dict[str, Callable[..., dict[str, Any]]] = {"acdc": prepare_acdc, "la": prepare_la}
"""The reader of each data set that `metassl prepare` knows: ``reader(source, labeled, seed) -> datalist``.

A reader of a data set without a published validation list also takes ``validation``, the number of cases to hold out.
"""
