# SPDX-License-Identifier: Apache-2.0
"""Segments images of any format with a trained bundle, each into a file in its own space."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_monai.bundle.errors import UserError, refuse
from metassl_monai.bundle.locate import bundle_path, config_files, run_bundle
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import prediction_mistakes
from metassl_monai.data.datalist import parse_json
from metassl_monai.integrations.labels import named_labels, write_label_tables
from metassl_monai.planning import Case, image_cases

from .further_formats import check_formats, write_formats
from .segmenter import Segmenter, read_inference, save_predictions, segment_each

__all__ = ["infer", "segment_images"]


def infer(
    bundle: str,
    overlays: Sequence[str],
    images: Sequence[Path],
    arguments: Sequence[str],
    out: Path | None,
    checkpoint: Path | None = None,
    device: str | None = None,
    overlap: str | None = None,
    also: Sequence[str] = (),
    **maps: bool,
) -> None:
    """Segment images, or run the bundle's inference as MONAI does where no images are given.

    Args:
        bundle: name or path.
        overlays: names of further configs.
        images: what ``--images`` names first.
        arguments: with images, further ones; else the ids and values for MONAI.
        out: see :func:`segment_images`, as all that follow.
        checkpoint: likewise.
        device: likewise; without images an id like any other.
        overlap: likewise; without images an id like any other.
        also: likewise.
        maps: ``probabilities`` and ``uncertainty``.

    Raises:
        UserError: for options that do not go together, and as :func:`segment_images` and :func:`run_bundle` do.
    """
    if images:
        words = [word for word in arguments if word.startswith("-")]
        refuse(f"{word}: does not go with --images: leave it out, or leave --images out" for word in words)
        if out is None:
            raise UserError("--images: needs --out DIR, the folder of the predictions.")
        given = [*images, *map(Path, arguments)]
        segment_images(bundle, given, out, overlays, checkpoint, device, _fraction(overlap), also, **maps)
        return
    alone = {"--out": out, "--checkpoint": checkpoint, "--also": also} | {f"--{name}": on for name, on in maps.items()}
    refuse(f"{name}: goes with --images only: add --images DIR" for name, value in alone.items() if value)
    ids = {"--device": device, "--overlap": overlap}
    more = [word for name, value in ids.items() if value is not None for word in (name, value)]
    run_bundle("inference", config_files(bundle_path(bundle), ["inference", *overlays]), [*arguments, *more])


def segment_images(
    bundle: str,
    images: Sequence[Path],
    out: Path,
    overlays: Sequence[str] = (),
    checkpoint: Path | None = None,
    device: str | None = None,
    overlap: float | None = None,
    also: Sequence[str] = (),
    probabilities: bool = False,
    uncertainty: bool = False,
) -> None:
    """Segment images one after the other; one that fails is named on standard error, and the others go on.

    A prediction has its image's name with ``_seg``, and lies in the sub-folder of ``out`` that its image has in the
    folder that holds all images. NIfTI in the image's own space; of a picture it is a PNG. Where the bundle's
    ``datalist.json`` has ``label_values``, it holds those values. Tables in ``out`` name the structures and give them
    colors, for 3D Slicer and ITK-SNAP.

    Args:
        bundle: name or path of a bundle.
        images: folders, searched with their sub-folders, and files, in any format.
        out: folder of the predictions.
        overlays: names of further configs, such as ``mean_of_two``.
        checkpoint: weights; ``models/model.pt`` of the bundle if left out.
        device: such as ``"cpu"``; a GPU where there is one if left out.
        overlap: of two neighboring windows, as a fraction of their size, in [0, 1).
        also: further formats of each prediction, see :data:`~metassl_monai.apps.further_formats.FORMATS`.
        probabilities: write the probability of each class as well, ``<name>_probabilities``.
        uncertainty: write the entropy of the probabilities as well, ``<name>_uncertainty``, in nats.

    Raises:
        UserError: before anything is segmented for a missing network or folder, or images that would share a
            prediction, or a format that they cannot have; in the end when an image has failed.
        DatalistError: for images that are missing, or lack a channel.
    """
    folder = bundle_path(bundle).resolve()
    cases = _cases(folder, images, out)
    root = _root(cases, images)
    maps = {"save_probabilities": probabilities, "save_uncertainty": uncertainty}
    parser = read_inference(folder, checkpoint, overlays, root, device, overlap=overlap, **maps)
    label_values = _datalist(folder).get("label_values")
    save_predictions(parser, out, label_values)
    files = [_files(case) for case in cases]
    refuse(prediction_mistakes(files, root, out))
    check_formats(also, files)
    check_writable(out)
    labels = named_labels(parser.get_parsed_content("labels"), label_values)

    def finish(number: int, found: Mapping[str, Any]) -> None:
        write_formats(also, files[number], root, out, labels)

    done = segment_each(Segmenter(parser), files, finish, "segmenting", "image")
    write_label_tables(labels, out)
    if done < len(cases):
        others = f"; the others are segmented in {out}" if done else ""
        raise UserError(f"{len(cases) - done} of {len(cases)} images failed, as named above{others}.")
    sys.stdout.write(f"{done} image{'s' if done > 1 else ''} segmented into {out}\n")


def _cases(bundle: Path, images: Sequence[Path], out: Path) -> list[Case]:
    target = out.resolve()
    for folder in (path for path in images if path.is_dir()):
        if folder.resolve() == target:
            raise UserError(f"--out {out}: is the folder of the images: choose another one for the predictions.")
    source = _datalist(bundle).get("source")
    endings = source.get("endings", ()) if isinstance(source, dict) else ()
    # files of one name may come from several folders
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in images:
        groups[path if path.is_dir() else path.parent].append(path)
    cases = {case.images: case for group in groups.values() for case in image_cases(group, endings)}
    # predictions of an earlier run may lie below the folder of the images
    return [case for case in cases.values() if target not in case.images[0].resolve().parents]


def _datalist(bundle: Path) -> Mapping[str, Any]:
    file = bundle / "datalist.json"
    return parse_json(file) if file.is_file() else {}


def _root(cases: Sequence[Case], images: Sequence[Path]) -> Path:
    """Return the folder that holds all images: the one that was named, where there is one only."""
    if not cases:
        raise UserError(f"{images[0]}: holds no image but predictions: name a folder with images.")
    return Path(os.path.commonpath([os.path.abspath(path if path.is_dir() else path.parent) for path in images]))


def _files(case: Case) -> list[str]:
    return [str(file) for file in case.images]


def _fraction(overlap: str | None) -> float | None:
    try:
        value = None if overlap is None else float(overlap)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < 1:
        raise UserError(f"--overlap {overlap}: must be a number from 0 to below 1, such as 0.5.")
    return value
