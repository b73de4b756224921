# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's training of bundles, with its unlabeled studies as unlabeled images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from metassl_monai.data import write_datalist
from metassl_monai.data.datalist_structure import LISTS

__all__ = ["SemiSupervisedTrainTask", "studies_datalist"]

_BundleTrainTask: Any = optional_import("monailabel.tasks.train.bundle", name="BundleTrainTask", as_type="base")[0]


class SemiSupervisedTrainTask(_BundleTrainTask):  # type: ignore[misc]
    """Trains a bundle of this package on the studies of a MONAI Label server, and on nothing else.

    Studies with a final label are labeled or, as ``val_split`` has it, for validation; all others are unlabeled, which
    MONAI Label's own task would leave out. A datalist of them, ``monailabel_datalist.json``, is written into the bundle
    and is all that the training reads. Each training begins anew, from the network that is there if ``pretrained``.

    In ``main.py`` of MONAI Label's app ``monaibundle`` it takes the place of ``BundleTrainTask``, with its arguments.
    """

    def _fetch_datalist(self, request: dict[str, Any], datastore: Any) -> list[dict[str, str]]:
        self._unlabeled = [datastore.get_image_uri(image) for image in datastore.get_unlabeled_images()]
        labeled: list[dict[str, str]] = super()._fetch_datalist(request, datastore)
        return labeled

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        labeled = overrides.pop(self.const.key_train_dataset_data())
        validation = overrides.pop(self.const.key_validate_dataset_data(), ())
        labels = self.bundle_config.get_parsed_content("labels")
        folder, datalist = studies_datalist(labeled, self._unlabeled, validation, labels)
        file = Path(self.bundle_path, "monailabel_datalist.json")
        write_datalist(datalist, file)
        # the learning rate's schedule goes by this number, too
        overrides["epochs"] = overrides.pop(self.const.key_train_trainer_max_epochs())
        overrides |= {"dataset_dir": folder, "datalist": str(file), "overwrite": True}
        if not validation:
            overrides["keep"] = "last"
        return overrides


def studies_datalist(
    labeled: Sequence[Mapping[str, str]],
    unlabeled: Iterable[str],
    validation: Sequence[Mapping[str, str]],
    labels: Mapping[str, str],
) -> tuple[str, dict[str, Any]]:
    """Return the folder that holds all studies, and their datalist; a study is a subject.

    Args:
        labeled: ``image`` and ``label`` of each labeled study.
        unlabeled: the images without a label.
        validation: as ``labeled``, for validation.
        labels: name by class, ``{"0": "background", ...}``.

    Example:
        >>> pair = {"image": "/studies/a.nii.gz", "label": "/studies/labels/final/a.nii.gz"}
        >>> folder, datalist = studies_datalist([pair], ["/studies/b.nii.gz"], [], {"0": "background", "1": "aorta"})
        >>> folder, datalist["unlabeled"]
        ('/studies', [{'image': 'b.nii.gz', 'subject': 'b.nii.gz', 'case': 'b.nii.gz'}])
    """
    chosen = {"labeled": labeled, "unlabeled": [{"image": image} for image in unlabeled], "validation": validation}
    files = [os.path.realpath(file) for items in chosen.values() for item in items for file in item.values()]
    folder = os.path.commonpath([os.path.dirname(file) for file in files])

    def item(study: Mapping[str, str]) -> dict[str, str]:
        paths = {key: Path(os.path.relpath(os.path.realpath(file), folder)).as_posix() for key, file in study.items()}
        return {**paths, "subject": paths["image"], "case": paths["image"]}

    lists = {key: [item(study) for study in chosen.get(key, ())] for key in LISTS}
    return folder, {"labels": dict(labels), **lists}
