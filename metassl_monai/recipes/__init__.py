# SPDX-License-Identifier: Apache-2.0
"""The configs of bundles from one table: what all bundles, a dimension, a data set and a method say, each said once."""

from __future__ import annotations

from .compose import bundle_configs, method_ids, neutral_training, overlay_of
from .layout import format_config
from .parts import Config, data_sets, lay_upon, methods, part

__all__ = [
    "Config",
    "bundle_configs",
    "data_sets",
    "format_config",
    "lay_upon",
    "method_ids",
    "methods",
    "neutral_training",
    "overlay_of",
    "part",
]
