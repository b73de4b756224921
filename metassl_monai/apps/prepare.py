# SPDX-License-Identifier: Apache-2.0
"""Makes datalists and checks them, for the command line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.writable import check_writable_file
from metassl_monai.data import READERS, write_datalist

from .show import show_json

__all__ = ["prepare_data", "prepare_datalist", "report_problems"]


def prepare_data(
    name: str,
    out: Path,
    seed: str,
    validation: int | None,
    release: Mapping[str, Any],
    folders: Mapping[str, Any],
) -> None:
    """Write the datalist of a data set, or for the name ``folder`` a bundle for somebody's own scans.

    Args:
        name: a data set, or ``folder``.
        out: the datalist, or the bundle's folder.
        seed: see :func:`prepare_datalist`.
        validation: number of validation cases of a data set, or of validation subjects among the labeled ones.
        release: the options that only data sets have, None where they are left out.
        folders: the options that only folders have; ``images`` is needed.

    Raises:
        UserError: when an option is missing or belongs to the other kind, see also `prepare_datalist` and
            `prepare_folder`.
    """
    needed, others = (("images",), release) if name == "folder" else (("source", "labeled"), folders)
    mine = folders if name == "folder" else release
    for option in needed:
        if mine[option] is None:
            raise UserError(f"metassl prepare {name} needs --{option}: see metassl prepare --help.")
    for option, value in others.items():
        if value is not None:
            raise UserError(f"--{option}: metassl prepare {name} has no use for it; leave it out.")
    if name != "folder":
        left = {key: value for key, value in release.items() if key not in needed}
        prepare_datalist(name, release["source"], release["labeled"], out, seed, validation=validation, **left)
        return
    from .own_data import prepare_folder, update_folder

    if seed != "published" and not seed.isdigit():
        raise UserError(f"--seed {seed}: give a number.")
    collecting = {key: folders[key] for key in ("suffix", "subject", "ignore")}
    collecting |= {"unlabeled": folders["unlabeled"] or (), "label_names": folders["label"] or ()}
    if folders["update"]:
        if validation is not None or seed != "published" or folders["set"]:
            raise UserError("--update: keeps the lists and the plan: leave --validation, --seed and --set out.")
        update_folder(folders["images"], folders["labels"], out, **collecting)
        return
    drawn = {"validation": validation, "seed": int(seed) if seed.isdigit() else 0}
    prepare_folder(folders["images"], folders["labels"], out, folders["set"] or (), **collecting, **drawn)


def prepare_datalist(name: str, source: Path, labeled: int, out: Path, seed: str, **options: int | None) -> None:
    """Write the datalist of a data set and print what it holds.

    Args:
        name: one of ``metassl_monai.data.READERS``.
        source: folder of the release.
        labeled: number of labeled subjects.
        out: the datalist to write.
        seed: ``"published"`` or a number, as text.
        options: ``validation``, ``train``, ``test`` and ``fold``, for a data set whose reader takes them; None leaves
            its default.

    Raises:
        UserError: when the data set or the seed is unknown, the data set does not take an option, or ``out`` cannot be
            written.
    """
    if name not in READERS:
        raise UserError(f"no reader for {name!r}: choose one of {', '.join(sorted(READERS))}.")
    if seed != "published" and not seed.isdigit():
        raise UserError(f"--seed {seed}: give 'published' or a number.")
    given = {key: value for key, value in options.items() if value is not None}
    for key in given.keys() - inspect.signature(READERS[name]).parameters.keys():
        raise UserError(
            f"--{key} {given[key]}: {name} has no use for it, as its lists are fixed; leave the option out."
        )
    check_writable_file(out)
    datalist = READERS[name](source, labeled, seed if seed == "published" else int(seed), **given)
    write_datalist(datalist, out)
    for key, count in datalist["source"]["counts"].items():
        subjects = sorted({item["subject"] for item in datalist[key]})
        shown = f": {', '.join(subjects)}" if key == "labeled" else ""
        absent = datalist["source"].get("absent", {}).get(key, 0)
        missing = f" ({absent} published subjects are not in {source})" if absent else ""
        sys.stdout.write(f"{key:>10} {count:4} volumes of {len(subjects)} subjects{shown}{missing}\n")
    sys.stdout.write(f"wrote {out}\n")


def report_problems(datalist: Path, dataset_dir: Path, as_json: bool = False) -> None:
    """Print every problem of a data set, as text or as JSON.

    Raises:
        UserError: with their number, when there are any.
    """
    from metassl_monai.data import check_datalist

    problems = check_datalist(datalist, dataset_dir, progress=True)
    if as_json:
        show_json([problem._asdict() for problem in problems])
    for problem in () if as_json else problems:
        sys.stdout.write(f"{problem.file}: {problem.cause}\n    remedy: {problem.remedy}\n")
    if problems:
        raise UserError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {datalist}.")
    if not as_json:
        sys.stdout.write(f"{datalist}: no problem found\n")
