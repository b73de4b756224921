# SPDX-License-Identifier: Apache-2.0
"""The ``inference.json`` of a bundle at work in this process, for one image after the other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from tqdm import tqdm

from metassl_monai.bundle.errors import UserError, refuse, user_mistake
from metassl_monai.bundle.locate import config_files
from metassl_monai.bundle.preflight import check_network
from metassl_monai.data import Problem, check_images
from metassl_monai.data.check import Kind
from metassl_monai.data.read_ahead import read_ahead
from metassl_monai.planning.headers import reason_of
from metassl_monai.progress import Progress

__all__ = ["Segmenter", "keep_probabilities", "read_inference", "save_predictions", "segment_each"]

SAVE = "SavePredictiond"
POSTPROCESSING = "postprocessing::transforms"


def read_inference(
    bundle: Path,
    checkpoint: Path | None,
    overlays: Sequence[str],
    dataset_dir: Path,
    device: str | None = None,
    **ids: Any,
) -> ConfigParser:
    """Read the configs of a bundle's inference, for images that are handed over one by one.

    Args:
        bundle: the bundle's folder.
        checkpoint: the weights; ``models/model.pt`` of the bundle if left out.
        overlays: names of further configs, such as ``mean_of_two``; if there are none, the overlay whose network the
            weights fit is taken where those of the bundle's own do not.
        dataset_dir: the folder that holds all images.
        device: such as ``"cpu"`` or ``"cuda:1"``; the config's own if left out.
        ids: values of further ids of the config; those that are None are left alone.

    Raises:
        UserError: when the bundle lacks a config or one of the ids, or there is no such network or device.
    """
    checkpoint = checkpoint or bundle / "models" / "model.pt"
    if not checkpoint.is_file():
        raise UserError(f"no network at {checkpoint}: train first, or pass --checkpoint FILE.")
    parser = _parser(bundle, overlays or _fitting_overlay(bundle, checkpoint))
    given = {name: value for name, value in ids.items() if value is not None}
    unknown = [name for name in given if name not in parser]
    refuse(f"--{name}: {bundle.name} segments whole images at once: leave it out" for name in unknown)
    taken: dict[str, Any] = {"bundle_root": str(bundle), "dataset_dir": str(dataset_dir), "datalist": None}
    taken["ckpt_path"] = str(checkpoint)
    taken["dataset::data"] = [{}]  # one place, which each image takes in its turn
    for name, value in {**taken, **given, **_device_ids(device)}.items():
        parser[name] = value
    return parser


def save_predictions(parser: ConfigParser, out: Path, label_values: Mapping[str, int] | None) -> None:
    """Let the config write its files into a folder, label maps with the raw values of annotations."""
    for number, transform in enumerate(parser[POSTPROCESSING]):
        if transform["_target_"].endswith(SAVE):
            parser[f"{POSTPROCESSING}::{number}::output_dir"] = str(out)
            if "output_postfix" not in transform and label_values:
                parser[f"{POSTPROCESSING}::{number}::label_values"] = dict(label_values)


def keep_probabilities(parser: ConfigParser) -> None:
    """Let the config end with class probabilities in the geometry of the image's file, and write nothing."""
    targets = [transform["_target_"] for transform in parser[POSTPROCESSING]]
    end = next(number for number, target in enumerate(targets) if target.endswith("AsDiscreted"))
    parser[POSTPROCESSING] = [it for it in parser[POSTPROCESSING][:end] if not it["_target_"].endswith(SAVE)]


class Segmenter:
    """Runs the evaluator of an inference config on one image at a time, with weights that can be exchanged.

    Args:
        parser: the config, see :func:`read_inference`; it is not to be changed afterwards.

    Raises:
        UserError: when the file of ``ckpt_path`` is missing or does not fit the network.
    """

    def __init__(self, parser: ConfigParser) -> None:
        parser["handlers"] = []  # the weights are loaded here, once
        metadata = ConfigParser.load_config_file(Path(parser["bundle_root"]) / "configs" / "metadata.json")
        self.kind: Kind = "picture" if any("'picture'" in str(check) for check in parser["checks"]) else "volume"
        shape = metadata["network_data_format"]["inputs"]["image"]
        self.channels = shape["num_channels"] if self.kind == "volume" else 1  # those of a picture are colors
        self.network = parser.get_parsed_content("network")
        self.load(parser.get_parsed_content("ckpt_path"))
        self.evaluator = parser.get_parsed_content("evaluator")
        self.dataset = parser.get_parsed_content("dataset")
        self.preprocessing, self.dataset.transform = self.dataset.transform, Compose()
        self.evaluator.logger = logging.getLogger(f"{__name__}.silent")  # a failure is the caller's to tell
        self.evaluator.logger.setLevel(logging.CRITICAL)

    def load(self, weights: str | Path) -> None:
        """Take other weights of the same network."""
        check_network(self.network, str(weights))
        content = torch.load(weights, map_location="cpu", weights_only=True)
        self.network.load_state_dict(content.get("model", content))

    def problems(self, files: Sequence[str]) -> list[Problem]:
        """Read an image, one file or one a channel, to its end and return what is wrong with it."""
        return check_images([files], self.kind, self.channels)

    def read(self, files: Sequence[str]) -> dict[str, Any]:
        """Read an image as the network takes it."""
        image: dict[str, Any] = self.preprocessing({"image": files[0] if len(files) == 1 else [*files]})
        return image

    def __call__(self, image: dict[str, Any]) -> dict[str, Any]:
        """Segment what was read and return what the postprocessing leaves; its files are written by then."""
        self.dataset.data = [image]
        self.evaluator.run()
        return dict(self.evaluator.state.output[0])


def _parser(bundle: Path, overlays: Sequence[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(file) for file in config_files(bundle, ["inference", *overlays])])
    return parser


def _fitting_overlay(bundle: Path, checkpoint: Path) -> list[str]:
    """Return the overlay, of those that say no more than another network, that weights fit; none where none is."""
    contents = {file.stem: ConfigParser.load_config_file(file) for file in sorted((bundle / "configs").glob("*.json"))}
    others = [[name] for name, content in contents.items() if set(content) == {"_desc_", "network_def"}]
    for overlays in ([], *others):
        try:
            check_network(_parser(bundle, overlays).get_parsed_content("network_def"), str(checkpoint))
        except UserError:
            continue
        return overlays
    return []


def segment_each(
    segmenter: Segmenter,
    images: Sequence[Sequence[str]],
    use: Callable[[int, dict[str, Any]], object],
    doing: str,
    unit: str,
) -> int:
    """Segment images one after the other; where anything fails with one, say so on standard error in one line.

    Args:
        segmenter: what segments them.
        images: the files of each, one or one a channel.
        use: takes the number of an image and what the postprocessing leaves.
        doing: what is done, for the progress bar.
        unit: what an image is called there.

    Returns:
        With how many images nothing failed.
    """

    def read(files: Sequence[str]) -> tuple[Any, list[str]]:
        lines = [f"{problem.file}: {problem.cause}: {problem.remedy}" for problem in segmenter.problems(files)]
        return (None, lines) if lines else _attempt(files, segmenter.read, files)

    def finish(number: int, image: dict[str, Any]) -> None:
        use(number, segmenter(image))

    done = 0
    for number, (image, lines) in enumerate(Progress(read_ahead(read, images), doing, len(images), unit=unit)):
        if not lines:
            _, lines = _attempt(images[number], finish, number, image)
        for line in lines:
            tqdm.write(line, file=sys.stderr)
        done += not lines
    return done


def _attempt(files: Sequence[str], work: Callable[..., Any], *args: Any) -> tuple[Any, list[str]]:
    """Return what comes of a work, or why it failed: one image must not cost the others, whatever is wrong with it."""
    try:
        return work(*args), []
    except Exception as error:
        return None, [f"{files[0]}: {_reason(error)}"]


def _reason(error: Exception) -> str:
    """Return one line that says why something failed; MONAI wraps the reason into several exceptions."""
    mistake = user_mistake(error)
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(mistake or reason_of(error)).split())


def _device_ids(device: str | None) -> dict[str, Any]:
    if device is None:
        return {}
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device}: cannot be used here ({reason}): choose cpu, or cuda:0.") from None
    return {"device": chosen, "amp": chosen.type == "cuda"}
