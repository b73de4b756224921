# SPDX-License-Identifier: Apache-2.0
"""Anybody's own scans: from folders to a bundle that trains."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metassl_monai.bundle.errors import UserError, refuse_problems
from metassl_monai.bundle.locate import bundles_root
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import check_datalist, read_datalist, write_datalist
from metassl_monai.files import write_json
from metassl_monai.planning import Collected, collect_folder, device_at_hand, make_plan, take_fingerprint, write_bundle

__all__ = ["prepare_folder", "update_folder"]

_SETTLED = ("labels", "label_values", "label_threshold", "ignore", "channels")
"""What a plan and its networks rest on."""


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
    with _emptied_if_it_fails(out):
        collected = collect_folder(images, labels, out=out, **collecting)
        _tell_lists(collected)
        refuse_problems(check_datalist(collected.datalist, collected.dataset_dir, progress=True))
        fingerprint, device = take_fingerprint(collected.datalist, collected.dataset_dir), device_at_hand()
        decisions = make_plan(fingerprint, device, dict(map(_setting, settings)))
        content = read_datalist(collected.datalist)
        known = [decision._asdict() for decision in decisions]
        write_json(out / "plan.json", {"decisions": known, "device": device, "fingerprint": fingerprint})
        write_bundle(out, bundles_root(), decisions, content, collected.dataset_dir)
    width = max(len(decision.name) for decision in decisions)
    for name, value, reason in decisions:
        sys.stdout.write(f"  {name:<{width}}  {json.dumps(value)}: {reason}\n")
    sys.stdout.write(f"wrote the bundle {out}. Now:\n  metassl train {shlex.quote(str(out))}\n")


@contextmanager
def _emptied_if_it_fails(folder: Path) -> Iterator[None]:
    """Leave a folder that was empty or absent as it was, so that the command can be given again once it is mended."""
    there = folder.is_dir()
    try:
        yield
    except BaseException:
        for path in folder.iterdir() if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there and folder.is_dir():
            folder.rmdir()
        raise


def update_folder(images: Path, labels: Path | None, bundle: Path, **collecting: Any) -> None:
    """Read the folders of a bundle again: scans annotated since are labeled now, new scans join.

    Validation and test subjects stay, and so does the plan, so that networks before and after can be compared.

    Args:
        images: see `prepare_folder`.
        labels: see `prepare_folder`.
        bundle: the bundle that `prepare_folder` wrote.
        collecting: the other arguments of `collect_folder`, as they were then.

    Raises:
        UserError: when the bundle is none of these, a held-out subject is gone, or the data are of another kind now.
        DatalistError: when images and labels do not fit together.
    """
    file = bundle / "datalist.json"
    if not (file.is_file() and (bundle / "plan.json").is_file()):
        raise UserError(f"{bundle}: is no bundle of `metassl prepare folder`: leave --update out to make one.")
    before = read_datalist(file)
    kept = {item["subject"]: key for key in ("validation", "test") for item in before[key]}
    with TemporaryDirectory(prefix="metassl-") as folder:
        collected = collect_folder(images, labels, out=Path(folder), kept=kept, **collecting)
        refuse_problems(check_datalist(collected.datalist, collected.dataset_dir, progress=True))
        after = read_datalist(collected.datalist)
    _refuse_another_kind(bundle, before, after, collected.dataset_dir)
    _tell_lists(collected)
    write_datalist(after, file)
    was = {item["case"] for item in before["labeled"]}
    new = [item["case"] for item in after["labeled"] if item["case"] not in was]
    sys.stdout.write(f"newly labeled: {', '.join(new) if new else 'none'}\nwrote {file}. Now:\n")
    first, second = shlex.quote(str(bundle)), shlex.quote(f"{bundle}_2")
    sys.stdout.write(f"  metassl train {first} --output_dir {second}\n")


def _refuse_another_kind(bundle: Path, before: Mapping[str, Any], after: Mapping[str, Any], root: Path) -> None:
    settled = Path(json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))["dataset_dir"])
    if settled != root.resolve():
        raise UserError(f"{bundle}: its files lie below {settled}, and these below {root}: prepare another bundle.")
    for key in _SETTLED:
        if before.get(key) != after.get(key):
            cause = f"its {key} are {before.get(key)}, and those of the folders {after.get(key)}"
            raise UserError(f"{bundle}: {cause}: give the options that it was made with, or prepare another bundle.")
    for key in ("validation", "test"):
        gone = {item["case"] for item in before[key]} - {item["case"] for item in after[key]}
        if gone:
            raise UserError(f"{bundle}: {min(gone)} is in its list {key!r} and no longer there: put it back.")


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
