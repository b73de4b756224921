# SPDX-License-Identifier: Apache-2.0
"""The rules of a plan, in the order in which they are asked.

A rule takes the facts (the fingerprint, ``device``, and each decision before it by name) and returns a value and its
reason. Where nnU-Net's planner (Isensee et al., Nature Methods 2021) has a rule that fits few labels and a pair of
networks, it is followed: anisotropy from a factor of 3, median spacing, windows of CT from labeled voxels, boxes of
nonzero voxels. It differs where a semi-supervised method needs room for a second network and a second stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["RULES"]

Facts = Mapping[str, Any]
Answer = tuple[Any, str]

_ANISOTROPIC = 3.0
_THIN = 16
_CPU_SLICE, _GPU_SLICE = 128, 256
_LONG = 2000
_CPU_PATCH, _GPU_PATCH = (64, 64, 48), (112, 112, 80)
_DIVISOR = 16  # four halvings in the networks
_ONE_PIECE = 0.98


def _dimension(facts: Facts) -> Answer:
    if facts["kind"] == "picture":
        return "tiles", "the images are pictures"
    size, spacing = facts["size"], facts["spacing"]
    if min(size) < _THIN:
        return "slices", f"volumes have {min(size):g} slices, and patches need {_THIN}"
    if spacing and max(spacing) / min(spacing) >= _ANISOTROPIC:
        return "slices", f"slices are {max(spacing) / min(spacing):.1f} times as far apart as their pixels"
    return "patches", "voxels are about as long as wide and there are enough slices"


def _orientation(facts: Facts) -> Answer:
    if facts["dimension"] == "tiles":
        return None, "pictures have none"
    if facts["dimension"] == "patches":
        return "RAS", "one orientation for all, whatever the files have"
    codes, across = facts["codes"], _across(facts)
    turned = codes[:across] + codes[across + 1 :] + codes[across]
    return turned, f"slices lie along {codes[across]}, which comes last: the axis with the fewest or the longest steps"


def _across(facts: Facts) -> int:
    """Return the axis from slice to slice."""
    spacing, size = facts["spacing"], facts["size"]
    if spacing and max(spacing) / min(spacing) >= _ANISOTROPIC:
        return max(range(3), key=lambda axis: spacing[axis])
    return min(range(3), key=lambda axis: size[axis])


def _spacing(facts: Facts) -> Answer:
    if facts["dimension"] == "tiles" or facts["spacing"] is None:
        return None, "the files do not tell the size of their voxels: nothing is resampled"
    spacing, size = _turned(facts, "spacing"), _turned(facts, "size")
    if facts["dimension"] == "slices":
        middle = (spacing[0] + spacing[1]) / 2
        field = max(size[0] * spacing[0], size[1] * spacing[1])
        most = _GPU_SLICE if facts["device"]["cuda"] else _CPU_SLICE
        target = max(middle, field / most)
        why = "the median in the slices" if target == middle else f"a whole slice then fits {most} x {most}"
        return [round(target, 4), round(target, 4), None], f"{why}; the distance of slices stays"
    patch = _GPU_PATCH if facts["device"]["cuda"] else _CPU_PATCH
    lengths = _turned(facts, "box") if facts["box"] else size
    box = [length * step for length, step in zip(lengths, spacing, strict=True)]
    needed = max(extent / 2 / (side * step) for extent, side, step in zip(box, patch, spacing, strict=True))
    factor = min(2.0, max(1.0, needed))
    reason = (
        "the median" if factor == 1 else f"the median times {factor:.2f}: a patch then shows half of the structures"
    )
    return [round(value * factor, 4) for value in spacing], reason


def _crop(facts: Facts) -> Answer:
    share = facts["nonzero"]
    if facts["dimension"] != "patches" or share >= 0.75:
        return False, f"{share:.0%} of a volume lies in the box of its nonzero voxels" if share else "not for slices"
    return True, f"only {share:.0%} of a volume lies in the box of its nonzero voxels"


def _modality(facts: Facts) -> Answer:
    if facts["dimension"] == "tiles":
        return "picture", "the images are pictures"
    smallest = facts["intensity"]["smallest"]
    if smallest <= -500 and facts["intensity"]["whole"] and facts["channels"] == 1:
        return "ct", f"intensities are whole numbers down to {smallest:g}, as Hounsfield units are"
    return "mr", f"the smallest intensity is {smallest:g}: no Hounsfield units"


def _window(facts: Facts) -> Answer:
    inside = facts["intensity"]["inside"]
    if facts["modality"] != "ct":
        return None, "only for CT"
    return [inside["low"], inside["high"]], "0.5 and 99.5 % of the intensities inside the labeled structures"


def _size(facts: Facts) -> Answer:
    gpu = facts["device"]["cuda"]
    if facts["dimension"] == "tiles":
        side = _rounded(min(_GPU_SLICE if gpu else _CPU_SLICE, *facts["size"][:2]))
        return [side, side], "tiles that a small network sees as a whole"
    if facts["dimension"] == "slices":
        most = _GPU_SLICE if gpu else _CPU_SLICE
        return [_rounded(min(most, side)) for side in _resampled(facts)[:2]], "a median slice, as far as memory goes"
    patch = _GPU_PATCH if gpu else _CPU_PATCH
    sides = [_rounded(min(side, most)) for side, most in zip(_resampled(facts), patch, strict=True)]
    return sides, f"what fits {facts['device']['name']} with two networks, and no more than a median volume"


def _features(facts: Facts) -> Answer:
    if facts["device"]["cuda"]:
        return [16, 32, 64, 128, 256], "the published width"
    return [8, 16, 32, 64, 128], "half the published width, for a CPU"


def _batch_size(facts: Facts) -> Answer:
    gpu = facts["device"]["cuda"]
    if facts["dimension"] == "patches":
        return (2, "published: two labeled and two unlabeled patches") if gpu else (1, "one of each stream, for a CPU")
    return (12, "published: twelve of each stream") if gpu else (6, "six of each stream, for a CPU")


def _iterations(facts: Facts) -> Answer:
    if facts["device"]["cuda"]:
        return 15000, "half of what papers train 2D networks for, and what BCP trains in 3D"
    return (
        (1500, "about an hour on two cores") if facts["dimension"] == "patches" else (2000, "half an hour on two cores")
    )


def _method(facts: Facts) -> Answer:
    if facts["cases"]["unlabeled"] == 0:
        return "supervised", "there is no image without label"
    return "bcp", "copy-paste of labeled and unlabeled images: see 'which method' in docs/results.md"


def _losses(facts: Facts) -> Answer:
    if facts["method"] == "bcp" and facts["dimension"] == "slices":
        return "metassl", "with copy-paste of slices the highest row of docs/results.md; own losses by plain.json"
    return "plain", "the method's own losses; MetaSSL's by the overlay metassl.json: see docs/results.md"


def _augmentation(facts: Facts) -> Answer:
    if facts["method"] == "supervised":
        return "strong", "the labeled images are all there is: see 'stronger random transforms' in docs/results.md"
    if facts["iterations"] >= _LONG:
        return "strong", f"from {_LONG} iterations slices gained: see 'stronger random transforms' in docs/results.md"
    return "weak", "the papers'; nothing is measured for so short a training"


def _optimizer(facts: Facts) -> Answer:
    if facts["iterations"] < 10000:
        return "adamw", "learns several times as fast as SGD in a short training"
    return "sgd", "the published one, for a long training"


def _keep(facts: Facts) -> Answer:
    if facts["subjects"]["validation"]:
        return "best", f"chosen by the {facts['subjects']['validation']} validation subjects"
    return "last", "there is no validation subject to choose by"


def _largest_component(facts: Facts) -> Answer:
    pieces = {name: of_one["largest_component"] for name, of_one in facts["classes"].items()}
    if facts["dimension"] == "tiles":
        return False, "pictures may show many"
    if facts["partial"]:
        return False, "annotations with gaps do not tell"
    if facts["cases"]["labeled"] < 2:
        return False, "one labeled case does not tell"
    if min(pieces.values()) >= _ONE_PIECE:
        return True, "each structure is one piece in every labeled case"
    several = min(pieces, key=lambda name: pieces[name])
    return False, f"{several} has more than one piece in a labeled case"


def _turned(facts: Facts, name: str) -> list[float]:
    """Return a value an axis in the order of the axes after they were turned."""
    pairs = ("LR", "PA", "IS")
    stored = [next(pair for pair in pairs if code in pair) for code in facts["codes"]]
    return [facts[name][stored.index(next(pair for pair in pairs if code in pair))] for code in facts["orientation"]]


def _resampled(facts: Facts) -> list[float]:
    """Return the median size after resampling."""
    size, target = _turned(facts, "size"), facts["target_spacing"]
    if target is None:
        return size
    before = _turned(facts, "spacing")
    return [n * old / new if new else n for n, old, new in zip(size, before, target, strict=True)]


def _rounded(side: float) -> int:
    return max(_DIVISOR, _DIVISOR * math.ceil(side / _DIVISOR - 0.25))


def _one_of(*values: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in values, " or ".join(map(str, values))


def _numbers(count: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value is None or (isinstance(value, list) and len(value) >= count), "a list, such as [1,2]"


_TRUTH = _one_of(True, False)
_COUNT = (lambda value: type(value) is int and value > 0), "a whole number above 0"
_TEXT = (lambda value: value is None or isinstance(value, str)), "three letters, such as RAS"
_METHODS = (lambda value: isinstance(value, str)), "the name of a method"

RULES: dict[str, tuple[Callable[[Facts], Answer], Callable[[Any], bool], str]] = {
    "dimension": (_dimension, *_one_of("slices", "patches", "tiles")),
    "orientation": (_orientation, *_TEXT),
    "target_spacing": (_spacing, *_numbers(3)),
    "crop": (_crop, *_TRUTH),
    "modality": (_modality, *_one_of("ct", "mr", "picture")),
    "window": (_window, *_numbers(2)),
    "patch_size": (_size, *_numbers(2)),
    "features": (_features, *_numbers(5)),
    "batch_size": (_batch_size, *_COUNT),
    "iterations": (_iterations, *_COUNT),
    "method": (_method, *_METHODS),
    "losses": (_losses, *_one_of("plain", "metassl")),
    "augmentation": (_augmentation, *_one_of("weak", "strong")),
    "optimizer": (_optimizer, *_one_of("adamw", "sgd")),
    "keep": (_keep, *_one_of("best", "last")),
    "largest_component": (_largest_component, *_TRUTH),
}
"""By name: the rule, what values it may be given, and how to say that."""
