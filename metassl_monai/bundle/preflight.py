# SPDX-License-Identifier: Apache-2.0
"""What a bundle checks before it trains or segments: the data and the network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metassl_monai.data import (
    DatalistError,
    check_datalist,
    check_images,
    load_datalist,
    prediction_mistakes,
    read_datalist,
    read_label,
)
from metassl_monai.data.channels import image_files
from metassl_monai.data.check import Kind
from metassl_monai.data.datalist import join_inside, parse_json
from metassl_monai.finite import first_not_finite

from .errors import refuse, refuse_problems

__all__ = ["check_data", "check_inference", "check_network", "check_volumes"]


def check_data(
    datalist: str,
    dataset_dir: str,
    lists: Sequence[str],
    labels: Mapping[str, str],
    keep: str | None = None,
    needs_unlabeled: bool = True,
    kind: Kind = "volume",
) -> None:
    """Stop before anything is trained or scored if a file that it uses is missing or wrong, or a list is empty.

    Costs one pass over the data.

    Args:
        datalist: the datalist file.
        dataset_dir: folder of its images.
        lists: the lists that are used.
        labels: name of each class value, which must be those of the datalist.
        keep: the network that a training keeps: ``"best"`` needs a validation case with a structure, by which it is
            chosen; ``"last"`` needs no validation case. None for an evaluation.
        needs_unlabeled: whether the method needs unlabeled cases.
        kind: what the network takes, ``"volume"`` or ``"picture"``.

    Raises:
        UserError: with one message that names every file, what is wrong with it, and the remedy.
    """
    refuse_problems(check_datalist(datalist, dataset_dir, lists=lists, progress=True, kind=kind))
    content = read_datalist(datalist)
    if dict(content["labels"]) != dict(labels):
        refuse([f"{datalist}: its labels {content['labels']} are not the config's {labels}: make them equal"])
    refuse(_list_mistakes(datalist, content, lists, keep, needs_unlabeled))
    if keep == "best" and not _has_structure(datalist, dataset_dir, content):
        cause = "no label of 'validation' has a structure, so no network is the best"
        refuse([f"{datalist}: {cause}: add a case that has one, or pass --keep last"])


def check_inference(ckpt_path: str, dataset_dir: str, datalist: str | None, split: str) -> None:
    """Stop before any image is listed if the network, the folder, the datalist or the split is not there.

    Any JSON file whose lists hold items with an ``image`` will do as datalist: to segment images, they need no labels.

    Args:
        ckpt_path: the network's weights.
        dataset_dir: folder of the images.
        datalist: a datalist file; ``None`` where images are found by their names.
        split: the list of the datalist to segment.

    Raises:
        UserError: with one message that names all that is missing.
    """
    messages = []
    if not Path(ckpt_path).is_file():
        messages.append(_no_network(ckpt_path))
    if not Path(dataset_dir).is_dir():
        messages.append(f"no folder {dataset_dir}: pass --dataset_dir FOLDER.")
    refuse([*messages, *(_split_mistakes(datalist, split, dataset_dir) if datalist else ())])


def check_volumes(
    images: Sequence[str | Sequence[str]],
    dataset_dir: str,
    predictions: str,
    datalist: str | None = None,
    read: bool = True,
    kind: Kind = "volume",
    channels: int = 1,
) -> None:
    """Stop before anything is segmented if there is no image, or one is damaged, or a prediction would hide a file.

    Args:
        images: the images to segment; each a file, or a list of files, one a channel.
        dataset_dir: the folder that must hold them; predictions are put into the same sub-folders.
        predictions: the folder of the predictions.
        datalist: a datalist file, whose annotations no prediction may overwrite.
        read: read every image to its end, which costs one pass over the data.
        kind: what the network takes, ``"volume"`` or ``"picture"``.
        channels: how many channels it takes, where they are not colors.

    Raises:
        UserError: with one message that names every file, what is wrong with it, and the remedy.
    """
    advice = "pass --dataset_dir FOLDER, with --datalist FILE or --image_pattern GLOB."
    refuse([] if images else [f"no images in {dataset_dir}: {advice}"])
    refuse(_outside(dataset_dir, (os.path.abspath(file) for image in images for file in image_files(image))))
    labels = [os.path.join(dataset_dir, path) for path in _named(datalist, "label")] if datalist else []
    refuse(prediction_mistakes(images, dataset_dir, predictions, labels))
    if read:
        refuse_problems(check_images(images, kind, channels, progress=True))


def check_network(network: nn.Module, ckpt_path: str) -> None:
    """Stop before anything is segmented or scored if a file does not hold the weights of this very network.

    Args:
        network: what the config builds.
        ckpt_path: its weights, a state dict or one under the key ``"model"``, as MONAI's ``CheckpointLoader`` takes it.

    Raises:
        UserError: with one message that says that the file is missing, or names the first weight that does not fit.
    """
    refuse(_weight_mistakes(network, ckpt_path))


def _list_mistakes(
    datalist: str, content: Mapping[str, Any], lists: Sequence[str], keep: str | None, needs_unlabeled: bool
) -> Iterator[str]:
    if keep not in (None, "best", "last"):
        yield f"--keep {keep}: choose best or last"
    optional = {"validation"} if keep == "last" else set()
    if not needs_unlabeled and not content["unlabeled"]:
        optional |= {"unlabeled", "monitor"}  # no case whose label could be hidden
    for key in lists:
        if not content[key] and key not in optional:
            remedy = ", or pass --keep last" if key == "validation" and keep == "best" else ""
            yield f"{datalist}: the list {key!r} is empty: add cases to it{remedy}"


def _has_structure(datalist: str, dataset_dir: str, content: Mapping[str, Any]) -> bool:
    items = load_datalist(datalist, "validation", dataset_dir)
    return any(bool(read_label(item["label"], content).gt(0).any()) for item in items)


def _no_network(ckpt_path: str) -> str:
    return f"no network at {ckpt_path}: train first, or pass --ckpt_path FILE."


def _split_mistakes(datalist: str, split: str, dataset_dir: str) -> Iterator[str]:
    try:
        content = parse_json(datalist)
    except DatalistError as error:
        yield str(error)
        return
    fields = content.items() if isinstance(content, dict) else ()
    lists = {key: items for key, items in fields if isinstance(items, list)}
    if not lists.get(split):
        cause = f"the list {split!r} is empty" if split in lists else f"has no list {split!r}"
        yield f"{datalist}: {cause}: pass --split {' or '.join(key for key in lists if lists[key])}"
        return
    images = [item.get("image") if isinstance(item, dict) else None for item in lists[split]]
    several = [image if isinstance(image, list) and image else [image] for image in images]
    files = [file for of_one in several for file in of_one if isinstance(file, str)]
    if len(files) < sum(map(len, several)):
        yield f"{datalist}: an item of {split!r} has no `image`: give each the path of one"
        return
    yield from _outside(dataset_dir, files)
    # MONAI's reader of datalists leaves a path that is not there unjoined, so that later checks could not name it
    for path in (os.path.join(dataset_dir, file) for file in files):
        if not os.path.exists(path):
            yield f"{path}: the file is missing: add it or take the case out of the datalist"


def _named(datalist: str, field: str) -> list[str]:
    """Return what the items of all lists of any datalist name as image or label."""
    lists = [items for items in parse_json(datalist).values() if isinstance(items, list)]
    items = [item for items in lists for item in items if isinstance(item, dict)]
    return [item[field] for item in items if isinstance(item.get(field), str)]


def _weight_mistakes(network: nn.Module, ckpt_path: str) -> Iterator[str]:
    if not Path(ckpt_path).is_file():
        yield _no_network(ckpt_path)
        return
    try:
        content = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        found = _shapes(content.get("model", content))
    except Exception as error:  # damaged bytes make torch raise nearly anything
        yield f"{ckpt_path}: holds no weights of a network ({type(error).__name__}): pass the model.pt of a training"
        return
    wanted = _shapes(network.state_dict())
    for key in {**wanted, **found}:
        if wanted.get(key) != found.get(key):
            shapes = f"is {found.get(key, 'absent')}, but {wanted.get(key, 'absent')} in the config's network"
            yield f"{ckpt_path}: its {key} {shapes}: give the overlays and ids that it was trained with"
            return
    if name := first_not_finite(content.get("model", content)):
        yield f"{ckpt_path}: its {name} is not finite, the training has diverged: pass the network of another training"


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(weight.shape) for key, weight in state.items()}


def _outside(dataset_dir: str, images: Iterable[str]) -> Iterator[str]:
    for image in images:
        try:
            join_inside(dataset_dir, image)
        except DatalistError as error:
            yield str(error)
