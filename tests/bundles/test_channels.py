# SPDX-License-Identifier: Apache-2.0
"""Images of two files, one a channel, through a whole bundle: training, inference, evaluation."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.data import read_datalist
from metassl_monai.planning import collect_folder, image_cases

PHANTOM = "phantom_segmentation"


def two_channels(phantom: Path, folder: Path) -> Path:
    """The phantom in nnU-Net's raw layout; its second channel is the negative of the first."""
    source = phantom.parent
    for number, file in enumerate(sorted((source / "images").glob("*.nii.gz"))):
        name = file.name.removesuffix(".nii.gz")
        image = nibabel.load(file)
        for channel, sign in enumerate((1, -1)):
            target = folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(sign * image.get_fdata(), image.affine), target)
        label = source / "labels" / file.name
        if number < 4 and label.is_file():
            (folder / "labelsTr").mkdir(exist_ok=True)
            (folder / "labelsTr" / file.name).write_bytes(label.read_bytes())
    return folder


def test_two_files_an_image_from_folder_to_table(phantom, workflow, tmp_path):
    collected = collect_folder(two_channels(Path(phantom), tmp_path / "raw"), out=tmp_path / "prepared", validation=1)
    datalist = read_datalist(collected.datalist)
    assert collected.channels == ("0000", "0001")
    options = {
        "datalist": str(collected.datalist),
        "dataset_dir": str(collected.dataset_dir),
        "labels": datalist["labels"],
        "network_def::in_channels": 2,
    }
    training = workflow(PHANTOM, ["train"], **options)
    training.initialize()
    training.run()
    trained = {**options, "ckpt_path": str(tmp_path / "out" / "models" / "model.pt")}
    inference = workflow(PHANTOM, ["inference"], "infer", split="validation", **trained)
    inference.initialize()
    inference.run()
    predictions = tmp_path / "out" / "predictions"
    (item,) = datalist["validation"]
    image = nibabel.load(collected.dataset_dir / item["image"][0])
    prediction = nibabel.load(predictions / "imagesTr" / f"{item['case']}_seg.nii.gz")
    np.testing.assert_allclose(prediction.affine, image.affine)
    rows = evaluate_predictions(
        collected.datalist, collected.dataset_dir, "validation", predictions, tmp_path / "scores"
    )
    assert {row["case"] for row in rows} == {item["case"]}
    assert len(image_cases([tmp_path / "raw" / "imagesTr"], collected.endings)) == 7
