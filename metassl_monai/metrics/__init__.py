# SPDX-License-Identifier: Apache-2.0
"""Overlap and surface-distance metrics as the semi-supervised literature computes them (medpy's conventions)."""

from __future__ import annotations

from metassl_monai.metrics.segmentation import METRIC_NAMES, dice_by_structure, label_map, segmentation_metrics
from metassl_monai.metrics.surface import surface_distances

__all__ = ["METRIC_NAMES", "dice_by_structure", "label_map", "segmentation_metrics", "surface_distances"]
