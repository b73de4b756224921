# SPDX-License-Identifier: Apache-2.0
"""Every method as one row: which parts learn from which term. A new method is one more row of :data:`METHODS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Learners = Mapping[str, set[str]]
"""By pair, or further term, the parts of the method that it trains and no others; a dot goes into a submodule."""


@dataclass(frozen=True)
class MethodRow:
    """What the uniform tests of the bundles need to know of a method."""

    labeled: Learners
    unlabeled: Learners = field(default_factory=dict)
    extra: Learners = field(default_factory=dict)
    teacher: bool = False
    """Whether a child ``teacher`` follows by moving average."""
    bundles: tuple[str, ...] = ()
    """The bundles that have its overlay; empty: all."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings without which it would depend on the batch who learns."""
    competing: frozenset[str] = frozenset()
    """Terms of which a batch has but one: the other one trains nothing and its threshold holds."""
    not_plain: frozenset[str] = frozenset()
    """Terms that the method as published does not have."""

    def terms(self, plain: bool = False) -> dict[str, set[str]]:
        """By name of a loss term, the parts that it trains."""
        streams = {"labeled": self.labeled, "unlabeled": self.unlabeled, "extra": self.extra}
        terms = {f"{stream}/{name}": parts for stream, pairs in streams.items() for name, parts in pairs.items()}
        return {name: parts for name, parts in terms.items() if not (plain and name in self.not_plain)}

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts that learn from some term, and the teacher."""
        learning = {part for parts in self.terms().values() for part in parts}
        return (*sorted(learning), *(["teacher"] if self.teacher else []))


ACDC, LA = "acdc_cardiac_mri_segmentation", "la_atrium_mri_segmentation"

ONE = {"network": {"network"}}
BOTH = {"network": {"network"}, "second_network": {"second_network"}}
HALVES = {name: {f"{name}.encoder", f"{name}.decoder"} for name in BOTH}
DECODERS = {"network": {"network.encoder", "network.decoder"}, "second_decoder": {"network.encoder", "second_decoder"}}
AUXILIARY = {name: {"network.encoder", f"decoders.{name}"} for name in ("noise", "dropout", "most_active")}
PASSES = {name: {"network"} for name in ("first", "second")}
MIXED = {name: {"network"} for name in ("inward", "outward")}
STUDENTS = {**MIXED, **{f"second_{name}": {"second_network"} for name in MIXED}}
VIEWS = {**HALVES, "conflict": {f"{name}.encoder" for name in BOTH}}
SCALES = {
    "scale_1": {"network.encoder", "network.decoder", "network.decoder.head"},
    **{name: {"network.encoder", "network.decoder", f"heads.{name}"} for name in ("scale_2", "scale_4", "scale_8")},
}
STUDENT_AND_TEACHER: dict[str, Any] = {"labeled": ONE, "unlabeled": ONE, "teacher": True}


def each(*kinds: str) -> Learners:
    """Return a further term of each kind for each of two networks."""
    return {f"{kind}_{name}": parts for kind in kinds for name, parts in BOTH.items()}


METHODS = {
    "supervised": MethodRow(ONE),
    "full_supervised": MethodRow(ONE),
    "mean_teacher": MethodRow(**STUDENT_AND_TEACHER),
    "cps": MethodRow(BOTH, BOTH),
    "fixmatch": MethodRow(
        {"weak": {"network"}, "strong": {"network"}},
        {"strong": {"network"}},
        not_plain=frozenset({"labeled/strong"}),  # labeled images are seen weakly augmented only
    ),
    "rdrop": MethodRow(PASSES, PASSES),
    "cct": MethodRow({"main": {"network.encoder", "network.decoder"}, **AUXILIARY}, AUXILIARY),
    "bcp": MethodRow(MIXED, MIXED, teacher=True),
    "alhvr": MethodRow(BOTH, BOTH, each("prototypes", "entropy")),
    "dualnet": MethodRow(
        BOTH,
        BOTH,
        {
            "regularization": {"network", "second_network"},
            "uncertainty": {"second_network"},
            "contrast": {"second_network"},
        },
        settings={"method_def::roles": "fixed"},
    ),
    "cml": MethodRow(VIEWS, VIEWS),
    # the wider family that the papers compare with
    "ua_mt": MethodRow(**STUDENT_AND_TEACHER, bundles=(ACDC,)),
    "ac_mt": MethodRow(**STUDENT_AND_TEACHER, bundles=(ACDC,), settings={"method_def::limits": [0.0, 0.0]}),
    "ict": MethodRow(**STUDENT_AND_TEACHER, bundles=(ACDC,)),
    "mc_net": MethodRow(DECODERS, DECODERS, bundles=(ACDC,)),
    "dc_net": MethodRow(DECODERS, DECODERS, {"distillation": {"network.encoder"}}, bundles=(ACDC,)),
    "mlrp": MethodRow(DECODERS, DECODERS, bundles=(ACDC,)),
    "ccvc": MethodRow(HALVES, HALVES, {"conflict": {"network.encoder", "second_network.encoder"}}, bundles=(ACDC,)),
    "em": MethodRow(ONE, extra={"entropy": {"network"}}, bundles=(ACDC,)),
    "urpc": MethodRow(SCALES, SCALES, bundles=(ACDC,)),
    "mcf": MethodRow(
        BOTH,
        BOTH,
        each("review"),
        bundles=(LA,),
        competing=frozenset({"unlabeled/network", "unlabeled/second_network"}),
    ),
    "sdcl": MethodRow(STUDENTS, STUDENTS, each("distance", "uniform"), teacher=True, bundles=(ACDC, LA)),
}
