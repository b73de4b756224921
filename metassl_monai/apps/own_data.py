# SPDX-License-Identifier: Apache-2.0
"""Anybody's own scans: from folders to a bundle that trains."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metassl_monai.data import check_datalist, read_datalist
from metassl_monai.files import write_json
from metassl_monai.planning import Collected, collect_folder, device_at_hand, make_plan, take_fingerprint, write_bundle

from .bundles import bundles_root
from .errors import UserError, refuse_problems
from .writable import check_writable

__all__ = ["prepare_folder"]


def prepare_folder(
    images: Path, labels: Path | None, out: Path, settings: Sequence[str] = (), **collecting: Any
) -> None:
    """Look at folders of images and labels, decide how to train on them, and write a bundle.

    Args:
        images: folder of the images, or a list of cases, see `collect_folder`.
        labels: folder of the labels; None where they lie beside the images.
        out: the bundle's folder, new or empty.
        settings: decisions that are given, ``"name=value"`` with the value in JSON or as text.
        collecting: the other arguments of `collect_folder`.

    Raises:
        UserError: when ``out`` holds something, or a file is damaged.
        DatalistError: when images and labels do not fit together.
        PlanError: for a setting that is no decision.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists already: remove it, or choose another folder with --out.")
    check_writable(out)
    collected = collect_folder(images, labels, out=out, **collecting)
    _tell_lists(collected)
    refuse_problems(check_datalist(collected.datalist, collected.dataset_dir, progress=True))
    fingerprint, device = take_fingerprint(collected.datalist, collected.dataset_dir), device_at_hand()
    decisions = make_plan(fingerprint, device, dict(map(_setting, settings)))
    content = read_datalist(collected.datalist)
    plan = {"decisions": [decision._asdict() for decision in decisions], "device": device, "fingerprint": fingerprint}
    write_json(out / "plan.json", plan)
    write_bundle(out, bundles_root(), decisions, content, collected.dataset_dir)
    width = max(len(decision.name) for decision in decisions)
    for name, value, reason in decisions:
        sys.stdout.write(f"  {name:<{width}}  {json.dumps(value)}: {reason}\n")
    sys.stdout.write(f"wrote the bundle {out}. Now:\n  metassl train {out}\n")


def _tell_lists(collected: Collected) -> None:
    sys.stdout.write(f"{collected.layout}\n")
    for key, count in collected.cases.items():
        sys.stdout.write(f"{key:>10} {count:4} cases of {collected.subjects[key]} subjects\n")
    for remark in collected.remarks:
        sys.stdout.write(f"  note: {remark}\n")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write --set NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
