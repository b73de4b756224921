# SPDX-License-Identifier: Apache-2.0
"""Sliding windows of the left atrium: the default ones against the papers', in evaluations, time and Dice (no test).

    python tests/benchmarks/inference.py --images LA --ckpt runs/model.pt --overlay la_small --timed 4 --out speed.json

All volumes below ``--images`` (``CASE/lgemri.nrrd``, ``CASE/laendo.nrrd``) are counted; the last ``--timed`` of them,
in the order of names, are segmented both ways by one trained network, on the CPU. Windows have the published size.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import monai
import torch
from monai.bundle import ConfigParser

from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.data import case_loading
from metassl_monai.files import write_json
from metassl_monai.metrics import dice_by_structure

LA = "la_atrium_mri_segmentation"
WINDOWS = {"default": [], "papers": ["paper_strides"]}
UNCROPPED = (320, 320, 88)


class Counting(torch.nn.Module):
    """A network that counts its evaluations, one a window."""

    def __init__(self, network=None):
        super().__init__()
        self.network, self.evaluations = network or torch.nn.Identity(), 0

    def forward(self, x):
        self.evaluations += len(x)
        return self.network(x)


def read_bundle(overlays, ckpt):
    """Return the config of inference with the network's width from the overlays and windows of the published size."""
    configs = bundle_path(LA)
    parser = ConfigParser()
    parser.read_config([str(file) for file in config_files(configs, ["inference", *overlays])])
    parser["patch_size"] = ConfigParser.load_config_file(configs / "configs" / "inference.json")["patch_size"]
    parser["ckpt_path"], parser["device"] = str(ckpt), torch.device("cpu")
    return parser


def evaluations(inferer, shape):
    """Return the number of windows of a volume."""
    network = Counting()
    inferer(torch.zeros(1, 1, *shape), network)
    return network.evaluations


@torch.inference_mode()
def segmented(parser, inferer, network, image):
    """Return the label map of an image and what it took."""
    network = Counting(torch.nn.Sequential(network, torch.nn.Softmax(dim=1)))
    began, worked = time.perf_counter(), time.process_time()
    probabilities = inferer(image[None], network)
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
    keep = monai.transforms.KeepLargestConnectedComponent(applied_labels=[1])
    prediction = keep(probabilities[0].argmax(0, keepdim=True))[0].numpy()
    return prediction, {"evaluations": network.evaluations, **{key: round(value, 1) for key, value in spent.items()}}


def dice(a, b):
    return round(dice_by_structure(a, b, {1: "atrium"})["atrium"], 4)


def compared(parsers, inferers, network, case):
    """Return what both kinds of windows took on a case and scored, and their Dice with each other."""
    image = parsers["default"].get_parsed_content("preprocessing")({"image": str(case / "lgemri.nrrd")})["image"]
    truth = case_loading("label")({"label": str(case / "laendo.nrrd")})["label"][0].numpy() > 0
    row, predictions = {"case": case.name, "shape": list(image.shape[1:])}, {}
    for name, inferer in inferers.items():
        predictions[name], row[name] = segmented(parsers[name], inferer, network, image)
        row[name]["dice"] = dice(predictions[name], truth)
    return {**row, "dice_of_both": dice(*predictions.values())}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--ckpt", type=Path, required=True)
    options.add_argument("--overlay", action="append", default=[])
    options.add_argument("--timed", type=int, default=1)
    options.add_argument("--about", default="", help="a sentence on volumes and network")
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    parsers = {name: read_bundle([*given.overlay, *windows], given.ckpt) for name, windows in WINDOWS.items()}
    inferers = {name: parser.get_parsed_content("inferer") for name, parser in parsers.items()}
    network = parsers["default"].get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(given.ckpt, weights_only=True))
    cases = sorted(file.parent for file in given.images.glob("*/lgemri.nrrd"))
    loading = case_loading("image")
    shapes = [tuple(loading({"image": str(case / "lgemri.nrrd")})["image"].shape[1:]) for case in cases]
    counts = {name: [evaluations(inferer, shape) for shape in shapes] for name, inferer in inferers.items()}
    timed = [compared(parsers, inferers, network, case) for case in cases[-given.timed :]]
    totals = {name: sum(row[name]["cpu_seconds"] for row in timed) for name in inferers}
    report = {
        "about": given.about,
        "patch_size": parsers["default"]["patch_size"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "machine": platform.machine(),
        "volumes": len(cases),
        "evaluations": {name: sum(values) for name, values in counts.items()},
        "fewer_evaluations": round(sum(counts["papers"]) / sum(counts["default"]), 2),
        "uncropped": {
            "shape": list(UNCROPPED),
            **{name: evaluations(inferer, UNCROPPED) for name, inferer in inferers.items()},
        },
        "timed": timed,
        "less_cpu_time": round(totals["papers"] / totals["default"], 2),
    }
    write_json(given.out, report)


if __name__ == "__main__":
    main()
