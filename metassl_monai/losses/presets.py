# SPDX-License-Identifier: Apache-2.0
"""Named settings of the MetaSSL losses: one table (``docs/losses.md`` says where each value comes from)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metassl_monai.options import check_option

from .backbone import CrossEntropyDiceLoss
from .metassl import MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from .region_accuracy import RegionAccuracyWeights
from .regions import Region
from .released import ReleasedLabeledLoss, ReleasedUnlabeledLoss
from .rival_thresholds import FlexMatchThreshold, FreeMatchThreshold
from .thresholds import AdaptiveThreshold, FixedThreshold, Threshold
from .weights import LABELED_ORDER, UNLABELED_ORDER

__all__ = ["PRESETS", "metassl_losses"]

# What all of the authors' released scripts compute alike, and each in its own way.
_RELEASED: dict[str, Any] = {"normalization": "region", "unanimous": "split"}
_RELEASED_LABELED: dict[str, Any] = {
    **_RELEASED,
    "judge": "self",
    "discrepancy": "pair",
    "dice": False,
    "ramped": True,
    "base": CrossEntropyDiceLoss,
}
_RELEASED_THRESHOLD: dict[str, Any] = {"keep": 0.5, "initial": 0.9, "absent": "decay"}
_GEOMETRIC = {"weights": (50, 50 / 1.25, 50 / (5**3 * 1.25**3), 50 / (5 * 1.25**2))}
_DS_BEFORE_DC = (Region.UC, Region.US, Region.DS, Region.DC)

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"labeled": {"delta": 0.3}, "unlabeled": {"delta": 0.6}, "threshold": {"keep": 0.99}},
    # Sec. IV-A names the two deltas the other way round from Sec. IV-C4 and Fig. 7.
    "paper_IVA": {"labeled": {"delta": 0.6}, "unlabeled": {"delta": 0.3}, "threshold": {"keep": 0.99}},
    # Eq. 10 to the letter: 0.99 on the new value.
    "paper_literal_ema": {"labeled": {"delta": 0.3}, "unlabeled": {"delta": 0.6}, "threshold": {"keep": 0.01}},
    # Annotations are right, so labeled images are weighed alike; accuracies take the place of the unlabeled delta.
    "region_accuracy": {
        "labeled": {"delta": 0.0},
        "unlabeled": {"delta": 0.0},
        "threshold": {"keep": 0.99},
        "accuracies": {"keep": 0.99},
    },
    "ref_cps2d": {
        "labeled": {**_RELEASED_LABELED, "delta": 0.3, "scale": 85.0, "order": UNLABELED_ORDER},
        "unlabeled": {**_RELEASED, "delta": 0.6, "scale": 50.0},
        "threshold": _RELEASED_THRESHOLD,
    },
    "ref_cct2d": {
        "labeled": {**_RELEASED_LABELED, "delta": 0.3, "scale": 50.0, "order": LABELED_ORDER},
        "unlabeled": {**_RELEASED, "delta": 0.6, "scale": 50.0, "order": _DS_BEFORE_DC},
        "threshold": _RELEASED_THRESHOLD,
    },
    "ref_mt2d": {
        "labeled": {**_RELEASED_LABELED, "weights": (50, 50 / 1.4, 50 / 1.4**3, 50 / 1.4**2)},
        "unlabeled": {**_RELEASED, **_GEOMETRIC},
        "threshold": _RELEASED_THRESHOLD,
    },
    "ref_3d": {
        "labeled": {**_RELEASED_LABELED, "weights": (50, 50 / 1.5, 50 / 1.5**3, 50 / 1.5**2)},
        "unlabeled": {**_RELEASED, **_GEOMETRIC},
        "threshold": {**_RELEASED_THRESHOLD, "cap": 0.9},
    },
}

_THRESHOLDS = {"flexmatch": FlexMatchThreshold, "freematch": FreeMatchThreshold}


def metassl_losses(
    num_classes: int,
    preset: str = "paper",
    threshold: str | float = "adaptive",
    share_thresholds: bool = False,
    labeled: Mapping[str, Any] | None = None,
    unlabeled: Mapping[str, Any] | None = None,
    **both: Any,
) -> tuple[MetaSSLLabeledLoss, MetaSSLUnlabeledLoss]:
    """Build the labeled and the unlabeled MetaSSL loss of a preset, each with its own thresholds.

    Every ablation is one argument here, so that a config can set it, for example
    ``--metassl_losses::threshold freematch`` or ``--metassl_losses::phi cosine``.

    Args:
        num_classes: number of classes, background included.
        preset: a key of :data:`PRESETS`.
        threshold: ``"adaptive"`` with the preset's settings, ``"flexmatch"``, ``"freematch"``, or a number between 0
            and 1, which is fixed (Table V).
        share_thresholds: one threshold state for labeled and unlabeled images instead of one each.
        labeled: arguments of :class:`MetaSSLLabeledLoss` or :class:`ReleasedLabeledLoss` that replace the preset's.
        unlabeled: arguments of :class:`MetaSSLUnlabeledLoss` or :class:`ReleasedUnlabeledLoss` that replace the
            preset's.
        both: arguments of both losses that replace the preset's, such as ``confidence``, ``mode``, ``phi``, ``beta``.

    Returns:
        The labeled and the unlabeled loss; of the released form where an argument of it is given.

    Raises:
        TypeError: when the losses have no argument of this name.
        ValueError: when the preset, the threshold or the value of an option is unknown, or one of the weight function
            is given to a preset that fixes or measures its weights.

    Example::

        >>> from metassl_monai.losses import metassl_losses
        >>> labeled_loss, unlabeled_loss = metassl_losses(num_classes=4, preset="paper")
        >>> _ = metassl_losses(4, threshold=0.9, confidence="std", unlabeled={"delta": 0.5})
    """
    check_option("preset", preset, sorted(PRESETS))
    settings = PRESETS[preset]
    first = _threshold(num_classes, threshold, settings["threshold"])
    second = first if share_thresholds else _threshold(num_classes, threshold, settings["threshold"])
    labeled_options = _merged(settings, "labeled", both, labeled or {})
    unlabeled_options = _merged(settings, "unlabeled", both, unlabeled or {})
    if "accuracies" in settings:
        unlabeled_options["accuracies"] = RegionAccuracyWeights(num_classes, **settings["accuracies"])
    released = _RELEASED_LABELED.keys() - {"normalization"}
    labeled_class = ReleasedLabeledLoss if released & labeled_options.keys() else MetaSSLLabeledLoss
    unlabeled_class = ReleasedUnlabeledLoss if "unanimous" in unlabeled_options else MetaSSLUnlabeledLoss
    return (
        labeled_class(num_classes, threshold=first, **labeled_options),
        unlabeled_class(num_classes, threshold=second, **unlabeled_options),
    )


def _merged(preset: Mapping[str, Any], stream: str, both: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    settings, given = preset[stream], {**both, **one}
    idle = {"delta", "beta", "phi", "order"} & set(given)
    if idle and "weights" in settings and "weights" not in given:
        raise ValueError(f"this preset fixes its weights, so {sorted(idle)} would do nothing: pass weights=None, too.")
    idle |= {"weights"} & set(given)
    if idle and "accuracies" in preset:
        raise ValueError(f"this preset measures its weights, so {sorted(idle)} would do nothing: leave that out.")
    options = {**settings, **given}
    if isinstance(options.get("base"), type):  # no two losses share one
        options["base"] = options["base"]()
    return options


def _threshold(num_classes: int, threshold: str | float, settings: Mapping[str, Any]) -> Threshold:
    if threshold == "adaptive":
        return AdaptiveThreshold(num_classes, **settings)
    if isinstance(threshold, (int, float)):
        return FixedThreshold(threshold)
    if threshold not in _THRESHOLDS:
        raise ValueError(
            f"threshold={threshold!r} is unknown: choose 'adaptive', 'flexmatch', 'freematch', or a number."
        )
    built: Threshold = _THRESHOLDS[threshold](num_classes)
    return built
