# SPDX-License-Identifier: Apache-2.0
"""A network as a file that other programs run: ONNX and PyTorch's exported programs, for any batch and size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from metassl_monai.bundle.errors import UserError
from metassl_monai.files import atomic_write

from .extras import required

__all__ = ["INPUT", "OUTPUT", "SIZE_STEP", "exported_program", "write_exported_program", "write_onnx"]

INPUT, OUTPUT = "image", "logits"
SIZE_STEP = 16
"""The networks of this package halve an image four times."""

AXES = ("height", "width", "depth")


def exported_program(network: nn.Module, channels: int, axes: int) -> Any:
    """Export a network, ``(batch, channels, *spatial)`` to logits, with any batch and sizes that 16 divides, from 32.

    Args:
        network: the network.
        channels: of the image.
        axes: 2 or 3 spatial ones.

    Raises:
        UserError: for a network whose graph depends on the size of the image.

    Example:
        >>> program = exported_program(nn.Conv2d(1, 2, 3, padding=1), channels=1, axes=2)
        >>> program.module()(torch.zeros(3, 1, 48, 32)).shape
        torch.Size([3, 2, 48, 32])
    """
    sizes = {axis + 2: SIZE_STEP * Dim(AXES[axis], min=2) for axis in range(axes)}
    example = torch.zeros(2, channels, *[4 * SIZE_STEP] * axes)
    try:
        return torch.export.export(network.eval().cpu(), (example,), dynamic_shapes=({0: Dim("batch"), **sizes},))
    except Exception as error:  # torch raises a dozen kinds of them
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{type(network).__name__}: cannot be exported for images of any size: {reason}") from error


def write_exported_program(network: nn.Module, channels: int, axes: int, path: Path) -> None:
    """Write a network as PyTorch's ``.pt2``, which ``torch.export.load`` reads without this package.

    Args:
        network: the network.
        channels: of the image.
        axes: 2 or 3 spatial ones.
        path: the file.

    Raises:
        UserError: see :func:`exported_program`.
    """
    content = io.BytesIO()
    torch.export.save(exported_program(network, channels, axes), content)
    with atomic_write(path, "wb") as file:
        file.write(content.getvalue())


def write_onnx(network: nn.Module, channels: int, axes: int, path: Path) -> None:
    """Write a network as one ONNX file with the input ``image`` and the output ``logits``.

    Args:
        network: the network.
        channels: of the image.
        axes: 2 or 3 spatial ones.
        path: the file.

    Raises:
        UserError: where onnxscript is not installed, and see :func:`exported_program`.
    """
    required("onnxscript", "ONNX")
    program = exported_program(network, channels, axes)
    onnx: Any = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False, external_data=False
    )
    with atomic_write(path, "wb") as file:
        file.write(onnx.model_proto.SerializeToString())
