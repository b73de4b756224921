# SPDX-License-Identifier: Apache-2.0
"""A bundle as a model repository of Hugging Face: its files, its weights and a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metassl_monai.bundle.errors import UserError
from metassl_monai.files import atomic_write

from .extras import required

__all__ = ["model_card", "write_repository"]

PARTS = ("configs", "docs", "LICENSE", "models/model.pt", "models/model.json", "models/model_ema.pt")
"""What of a bundle is for others: no datalist, history or checkpoint of the training."""


def write_repository(bundle: Path, out: Path) -> None:
    """Copy what others need of a trained bundle, with a ``README.md`` that Hugging Face reads as its card.

    Upload it with ``huggingface-cli upload OWNER/NAME OUT``. MONAI's ``push_to_hf_hub`` writes a card of its own.

    Args:
        bundle: the bundle's folder.
        out: a new folder.

    Raises:
        UserError: where huggingface_hub is not installed, the bundle has no network, or ``out`` exists.
    """
    hub = required("huggingface_hub", "a model card")
    if not (bundle / "models" / "model.pt").is_file():
        raise UserError(f"no network at {bundle / 'models' / 'model.pt'}: train first.")
    if out.exists():
        raise UserError(f"{out} exists already: choose another folder.")
    for part in PARTS:
        source, target = bundle / part, out / part
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    with atomic_write(out / "README.md") as file:
        file.write(model_card(hub, bundle))


def model_card(hub: Any, bundle: Path) -> str:
    """Return the card of a bundle: what Hugging Face searches by, what the metadata says, and how to use it.

    Args:
        hub: the module ``huggingface_hub``.
        bundle: the bundle's folder.
    """
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    header = hub.ModelCardData(
        license=_license(bundle),
        library_name="monai",
        pipeline_tag="image-segmentation",
        tags=["monai", "medical", "semi-supervised-learning", "metassl"],
    )
    text = "\n".join(_lines(bundle.resolve().name, metadata))
    return f"---\n{header.to_yaml()}\n---\n\n{text}\n"


def _license(bundle: Path) -> str:
    file = bundle / "LICENSE"
    apache = file.is_file() and "Apache License" in file.read_text(encoding="utf-8")
    return "apache-2.0" if apache else "unknown"


def _lines(name: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"# {metadata.get('name', name)}", "", f"{metadata.get('description', '')}.", "")
    yield from ("| | |", "|---|---|")
    rows = {"task": "task", "images": "image_classes", "classes": "pred_classes", "data": "data_source"}
    rows |= {"intended use": "intended_use", "authors": "authors", "version": "version"}
    for title, key in rows.items():
        if metadata.get(key):
            yield f"| {title} | {' '.join(str(metadata[key]).split())} |"
    yield from ("", "## Use", "", "```sh", f"metassl infer {name} --images scans --out predictions", "```", "")
    yield f"`{name}` is this folder. It is a MONAI bundle: `monai.bundle` and MONAI Label run it, too."
    references = metadata.get("references", ())
    if references:
        yield from ("", "## References", "")
        yield from (f"* {reference}" for reference in references)
