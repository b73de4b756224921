# SPDX-License-Identifier: Apache-2.0
"""Hands a trained bundle on: to ONNX, to PyTorch's exported programs, or as a repository of Hugging Face."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path
from metassl_monai.bundle.writable import check_writable, check_writable_file

__all__ = ["FORMATS", "export_bundle"]

FORMATS = ("onnx", "pt2", "huggingface")


def export_bundle(
    bundle: str, format: str, out: Path, checkpoint: Path | None = None, overlays: Sequence[str] = ()
) -> None:
    """Write a trained bundle in a format of other programs.

    Args:
        bundle: name or path.
        format: one of :data:`FORMATS`.
        out: the file, or for ``huggingface`` the folder.
        checkpoint: weights; ``models/model.pt`` of the bundle if left out.
        overlays: names of further configs, such as ``mean_of_two``.

    Raises:
        UserError: for another format, a missing network or package, or a place that cannot be written to.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: is none: choose of {', '.join(FORMATS)}.")
    folder = bundle_path(bundle).resolve()
    if format == "huggingface":
        from metassl_monai.integrations.hugging_face import write_repository

        check_writable(out)
        write_repository(folder, out)
    else:
        check_writable_file(out)
        _export_network(folder, format, out, checkpoint, overlays)
    sys.stdout.write(f"written to {out}\n")


def _export_network(bundle: Path, format: str, out: Path, checkpoint: Path | None, overlays: Sequence[str]) -> None:
    from metassl_monai.integrations.exchange_formats import write_exported_program, write_onnx

    from .segmenter import Segmenter, read_inference

    parser = read_inference(bundle, checkpoint, overlays, bundle, "cpu")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    image = metadata["network_data_format"]["inputs"]["image"]
    write = write_onnx if format == "onnx" else write_exported_program
    write(Segmenter(parser).network, image["num_channels"], len(image["spatial_shape"]), out)
