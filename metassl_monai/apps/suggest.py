# SPDX-License-Identifier: Apache-2.0
"""Which unlabeled cases to annotate next: those that the network is least sure of."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from rich.table import Table
from torch import Tensor

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.bundle.writable import check_writable_file
from metassl_monai.data import load_datalist, read_datalist, read_scan
from metassl_monai.data.channels import image_files
from metassl_monai.data.pictures import gray
from metassl_monai.files import atomic_write
from metassl_monai.handlers.drawing import write_figure
from metassl_monai.losses import FixedThreshold, Quadripartition, Region
from metassl_monai.report import NO_REGION, quadripartition_figure

from .segmenter import Segmenter, keep_probabilities, read_inference, segment_each
from .show import show_json, show_table

__all__ = ["Suggestion", "format_suggestions", "measure_doubt", "rank_cases", "suggest"]

THRESHOLD = 0.9
"""Confidence at or below which a voxel is suspicious."""

COLUMNS = ("uncertain", "suspicious", "discrepant", "entropy_nats", "voxels")
_MOST_DRAWN = 8


class Suggestion(NamedTuple):
    """A case, how unsure the networks are of it, and a plane of it to look at."""

    case: str
    subject: str
    image: str
    doubt: dict[str, float]
    plane: dict[str, np.ndarray]


def suggest(
    bundle: str,
    out: Path | None = None,
    count: int = 10,
    overlays: Sequence[str] = (),
    checkpoint: Path | None = None,
    device: str | None = None,
    as_json: bool = False,
) -> None:
    """Rank the unlabeled cases of a bundle, see :func:`rank_cases`, print the first ones and write all.

    Args:
        bundle: name or path of a trained bundle.
        out: CSV file with a line a case, the most uncertain first: ``rank``, ``case``, ``subject``, ``image``, and the
            columns of :func:`measure_doubt`. A picture of the first cases, at most 8, lies beside it.
        count: how many cases to print and to draw.
        overlays: names of further configs of the inference, such as ``mean_of_two``.
        checkpoint: weights; ``models/model.pt`` of the bundle if left out.
        device: such as ``"cpu"``; a GPU where there is one if left out.
        as_json: print JSON instead of a table.

    Raises:
        UserError: as :func:`rank_cases` does, when ``out`` cannot be written to, and in the end when an image failed.
    """
    for file in (out, _picture(out)) if out is not None else ():
        check_writable_file(file)
    ranked, failed, labels = rank_cases(bundle, overlays, checkpoint, device)
    if out is not None:
        _write(out, ranked, ranked[: min(count, _MOST_DRAWN)], labels)
    if as_json:
        shown = enumerate(ranked[:count], 1)
        show_json(
            [{"rank": i, "case": it.case, "subject": it.subject, "image": it.image, **it.doubt} for i, it in shown]
        )
    else:
        show_table(format_suggestions(ranked[:count]))
    if failed:
        raise UserError(f"{failed} of {failed + len(ranked)} cases failed, as named above; the others are ranked.")


def rank_cases(
    bundle: str, overlays: Sequence[str] = (), checkpoint: Path | None = None, device: str | None = None
) -> tuple[list[Suggestion], int, dict[str, str]]:
    """Rank the unlabeled cases of a bundle's datalist by how unsure its network is of them.

    The network is compared with the moving average that every training leaves beside it, ``model_ema.pt``, as MetaSSL
    compares a reference with a prediction: a voxel is *suspicious* where the network has no class with a confidence
    above 0.9, *discrepant* where the two call it differently, *uncertain* where it is either. Without an average the
    network is compared with itself. An image that fails is named on standard error.

    Args:
        bundle: see :func:`suggest`, as all that follow.
        overlays: likewise.
        checkpoint: likewise.
        device: likewise.

    Returns:
        The cases, the most uncertain first, how many have failed, and the name of each class value.

    Raises:
        UserError: when there is no unlabeled case or no network.
    """
    folder = bundle_path(bundle).resolve()
    items, dataset_dir, labels = _unlabeled(folder)
    model = checkpoint or folder / "models" / "model.pt"
    average = model.with_name(f"{model.stem}_ema.pt")
    networks = [_network(folder, overlays, dataset_dir, model, device)]
    networks += [_network(folder, overlays, dataset_dir, average, device)] if average.is_file() else []
    files = [image_files(item["image"]) for item in items]
    ranked: list[Suggestion] = []

    def rank(number: int, found: Mapping[str, Any]) -> None:
        # read anew, since what undoes the preprocessing is the network's own
        other = found if len(networks) == 1 else networks[1](networks[1].read(files[number]))
        ranked.append(_suggestion(items[number], found["pred"], other["pred"]))

    segment_each(networks[0], files, rank, "looking", "case")
    ranked.sort(key=lambda it: (-it.doubt["uncertain"], -it.doubt["entropy_nats"], it.case))
    return ranked, len(items) - len(ranked), labels


def measure_doubt(reference: Tensor, other: Tensor) -> tuple[dict[str, float], Tensor]:
    """Measure how unsure two networks are of an image.

    What both are sure is background does not count, else large images of small structures would look sure.

    Args:
        reference: class probabilities of the network that is asked for its confidence, ``(C, *spatial)``; all 0
            outside of what it was shown.
        other: those of the one that it is compared with.

    Returns:
        ``uncertain``, ``suspicious`` and ``discrepant``, fractions of the voxels that count; ``entropy_nats``, the mean
        entropy of the two networks' mean probabilities in these voxels, 0 to log(C); and ``voxels``, how many these
        are; all 0 where there is none. Second the regions, uint8 ``spatial``, ``NO_REGION`` where a voxel does not
        count.

    Example:
        >>> background, others = torch.tensor([[1.0, 0.01, 0.6]]), torch.tensor([[1.0, 0.01, 0.2]])
        >>> doubt, regions = measure_doubt(torch.cat([background, 1 - background]), torch.cat([others, 1 - others]))
        >>> doubt["voxels"], doubt["uncertain"], doubt["discrepant"], regions.tolist()
        (2, 0.5, 0.5, [255, 0, 3])
    """
    classes = other.argmax(dim=0)
    partition = Quadripartition(len(reference), FixedThreshold(THRESHOLD))
    regions = partition(reference.clamp_min(1e-8).log()[None], classes[None, None])[0, 0]
    counted = (regions != Region.UC) | (classes != 0) | (reference.argmax(dim=0) != 0)
    counted &= (other.sum(dim=0) > 0.5) & (reference.sum(dim=0) > 0.5)
    mean = (reference + other)[:, counted] / 2
    entropy = -(mean * mean.clamp_min(1e-8).log()).sum(dim=0)
    voxels, inside = int(counted.sum()), regions[counted]
    shares = {
        "uncertain": inside != Region.UC,
        "suspicious": (inside == Region.US) | (inside == Region.DS),
        "discrepant": (inside == Region.DC) | (inside == Region.DS),
        "entropy_nats": entropy,
    }
    doubt = {name: float(values.double().mean()) if voxels else 0.0 for name, values in shares.items()}
    return {**doubt, "voxels": voxels}, torch.where(counted, regions, NO_REGION)


def format_suggestions(suggestions: Sequence[Suggestion]) -> Table:
    """Return a table for the terminal, a row a case."""
    table = Table("rank", "case", "uncertain", "suspicious", "discrepant", "entropy (nats)")
    for rank, it in enumerate(suggestions, 1):
        shares = (f"{it.doubt[name]:.1%}" for name in ("uncertain", "suspicious", "discrepant"))
        table.add_row(str(rank), it.case, *shares, f"{it.doubt['entropy_nats']:.3f}")
    return table


def _network(bundle: Path, overlays: Sequence[str], dataset_dir: Path, file: Path, device: str | None) -> Segmenter:
    parser = read_inference(bundle, file, overlays, dataset_dir, device)
    keep_probabilities(parser)
    return Segmenter(parser)


def _unlabeled(bundle: Path) -> tuple[list[dict[str, Any]], Path, dict[str, str]]:
    parser = ConfigParser()
    parser.read_config(str(config_files(bundle, ["train"])[0]))
    parser["bundle_root"] = str(bundle)
    datalist, dataset_dir = (parser.get_parsed_content(name) for name in ("datalist", "dataset_dir"))
    items = load_datalist(datalist, "unlabeled", dataset_dir)
    if not items:
        raise UserError(f"{datalist}: no case is unlabeled, so there is none to suggest: add images without label.")
    return items, Path(dataset_dir), read_datalist(datalist)["labels"]


def _suggestion(item: dict[str, Any], reference: Tensor, other: Tensor) -> Suggestion:
    files = image_files(item["image"])
    reference, other = (torch.as_tensor(probabilities).cpu() for probabilities in (reference, other))
    doubt, regions = measure_doubt(reference, other)
    image = gray(torch.as_tensor(read_scan(files)), regions)
    maps = {"reference": reference.argmax(dim=0), "prediction": other.argmax(dim=0), "regions": regions}
    cut = _plane_to_see(**maps)
    plane = {name: values[cut].numpy() for name, values in {"image": image, **maps}.items()}
    return Suggestion(item["case"], item["subject"], files[0], doubt, plane)


def _plane_to_see(reference: Tensor, prediction: Tensor, regions: Tensor) -> Any:
    """Return the index of the plane with most uncertain voxels of a structure, or where there are none of any kind."""
    if regions.ndim < 3:
        return ...
    unsure = (regions != Region.UC) & (regions != NO_REGION)
    counts = (unsure & ((reference != 0) | (prediction != 0))).sum(dim=(0, 1))
    return ..., int((counts if counts.any() else unsure.sum(dim=(0, 1))).argmax())


def _write(out: Path, ranked: Sequence[Suggestion], drawn: Sequence[Suggestion], labels: Mapping[str, str]) -> None:
    with atomic_write(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rank", "case", "subject", "image", *COLUMNS))
        for rank, it in enumerate(ranked, 1):
            writer.writerow((rank, it.case, it.subject, it.image, *(f"{it.doubt[name]:.6g}" for name in COLUMNS)))
    if drawn:
        planes = {name: [it.plane[name] for it in drawn] for name in drawn[0].plane}
        figure = quadripartition_figure(
            planes["image"],
            None,
            planes["reference"],
            planes["prediction"],
            planes["regions"],
            [it.case for it in drawn],
            "least sure of all unlabeled cases; reference: the network, prediction: its moving average",
            labels,
        )
        write_figure(figure, _picture(out))


def _picture(out: Path) -> Path:
    return out.with_suffix(".png")
