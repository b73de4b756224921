# SPDX-License-Identifier: Apache-2.0
"""Named settings of the MetaSSL losses: one table (``docs/losses.md`` says where each value comes from)."""

from __future__ import annotations

from typing import Any

from .metassl import MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from .thresholds import AdaptiveThreshold

__all__ = ["PRESETS", "metassl_losses"]

# delta of the labeled and of the unlabeled weights, and the weight of the old threshold.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"labeled": {"delta": 0.3}, "unlabeled": {"delta": 0.6}, "threshold": {"keep": 0.99}},
    # Sec. IV-A names the two deltas the other way round from Sec. IV-C4 and Fig. 7.
    "paper_IVA": {"labeled": {"delta": 0.6}, "unlabeled": {"delta": 0.3}, "threshold": {"keep": 0.99}},
    # Eq. 10 to the letter: 0.99 on the new value.
    "paper_literal_ema": {"labeled": {"delta": 0.3}, "unlabeled": {"delta": 0.6}, "threshold": {"keep": 0.01}},
}


def metassl_losses(num_classes: int, preset: str = "paper") -> tuple[MetaSSLLabeledLoss, MetaSSLUnlabeledLoss]:
    """Build the labeled and the unlabeled MetaSSL loss of a preset, each with its own thresholds.

    Args:
        num_classes: number of classes, background included.
        preset: a key of :data:`PRESETS`.

    Returns:
        The labeled and the unlabeled loss.

    Raises:
        ValueError: when the preset is unknown.

    Example::

        >>> from metassl_monai.losses import metassl_losses
        >>> labeled_loss, unlabeled_loss = metassl_losses(num_classes=4, preset="paper")
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r} is unknown: choose one of {sorted(PRESETS)}.")
    settings = PRESETS[preset]
    labeled, unlabeled = (AdaptiveThreshold(num_classes, **settings["threshold"]) for _ in range(2))
    return (
        MetaSSLLabeledLoss(num_classes, threshold=labeled, **settings["labeled"]),
        MetaSSLUnlabeledLoss(num_classes, threshold=unlabeled, **settings["unlabeled"]),
    )
