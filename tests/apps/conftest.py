# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest
import torch

from metassl_monai.bundle.locate import bundle_path

NAMES = ("background", "vessel", "bone")


@pytest.fixture
def bright(tmp_path):
    """A bundle that calls bright voxels of the first channel class 1 and of the second class 2, for own data.

    Its network is one convolution over the intensities, which its config scales to 0 to 1.
    """

    def make(channels=1, average=0.5, /, **datalist):
        bundle = tmp_path / "heart"
        shutil.copytree(bundle_path("phantom_segmentation"), bundle)
        labels = {str(i): name for i, name in enumerate(NAMES[: channels + 1])}
        network = {"_target_": "torch.nn.Conv2d", "in_channels": channels, "out_channels": len(labels)}
        for name in ("train", "inference"):
            _change(bundle / "configs" / f"{name}.json", labels=labels, network_def={**network, "kernel_size": 1})
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
        metadata["network_data_format"]["inputs"]["image"]["num_channels"] = channels
        (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
        lists = {key: [] for key in ("labeled", "unlabeled", "validation", "test", "monitor")}
        item = {"image": "a.nii.gz", "label": "b.nii.gz", "subject": "a", "case": "a"}
        content = {"labels": labels, **lists, "labeled": [item], **datalist}
        (bundle / "datalist.json").write_text(json.dumps(content))
        (bundle / "models").mkdir()
        torch.save(_weights(channels, 0.5), bundle / "models" / "model.pt")
        torch.save(_weights(channels, average), bundle / "models" / "model_ema.pt")
        return bundle

    return make


def _weights(channels, threshold):
    """A background that is always at 0, and for each channel a class above it where the channel is bright."""
    weight = torch.zeros(channels + 1, channels, 1, 1)
    for channel in range(channels):
        weight[channel + 1, channel] = 40
    return {"weight": weight, "bias": torch.tensor([0.0] + [-40.0 * threshold] * channels)}


def _change(file, **ids):
    file.write_text(json.dumps({**json.loads(file.read_text()), **ids}))
