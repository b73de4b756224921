# SPDX-License-Identifier: Apache-2.0
"""Semi-supervised medical image segmentation, native to MONAI."""

from __future__ import annotations

__version__ = "0.1.0"
