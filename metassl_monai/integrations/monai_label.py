# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's training of bundles, with its unlabeled studies as unlabeled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.utils import optional_import

from metassl_monai.data import write_datalist

__all__ = ["SemiSupervisedTrainTask"]

BundleTrainTask: Any = optional_import("monailabel.tasks.train.bundle", name="BundleTrainTask", as_type="base")[0]
