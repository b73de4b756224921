# SPDX-License-Identifier: Apache-2.0
"""What is wrong with one image or annotation by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from .dicom import series_problem
from .pictures import is_picture, large_pictures
from .problems import DatalistError, Problem
from .reading import is_nifti, read_scan
from .sizes import read_to_end, size_problem

__all__ = ["Kind", "load_checked"]

Kind = Literal["volume", "picture"]

LARGEST = 1e18
"""Voxels above this overflow float32 where an image is normalized: its range fits, and its variance does not."""


def load_checked(file: str, kind: Kind | None, channels: int = 1) -> tuple[MetaTensor | None, list[Problem]]:
    """Load a file, or not where its geometry is unusable, and return what is wrong with it; never raises.

    Args:
        file: a file, or the folder of a DICOM series.
        kind: what the network takes; None where that does not matter.
        channels: how many the file must hold along a fourth axis; 1 for a file without such an axis.

    Returns:
        The image, of several channels the first one, and the problems.
    """
    if not os.path.exists(file):
        return None, [Problem(file, "the file is missing", "add it or take the case out of the datalist")]
    try:
        # A 4D film can be many gigabytes, so that its header is read before its voxels.
        unusable = list(_header_problems(file, channels))
        if unusable:
            return None, unusable
        if bomb := read_to_end(file):
            return None, [Problem(file, bomb, "the file is damaged or made to do harm: copy or export it again")]
        image = read_scan(file)
        shape = (*image.shape[1:], image.shape[0]) if image.ndim == 4 else tuple(image.shape)
        unusable = list(_geometry_problems(file, shape, image.affine.numpy(), channels))
        unusable += _kind_problems(file, shape[: len(shape) - (channels > 1)], kind)
        wrong = [] if unusable else list(_voxel_problems(file, image))
    except DatalistError as error:
        return None, [error.problem]
    # Damaged bytes make readers raise nearly anything (OSError, EOFError, zlib.error, struct.error, MemoryError, ...),
    # and one damaged file must not hide what is wrong with the others.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        # ITK first tells where in its own source, and the reason last.
        reason = lines[-1 if "ITK" in lines[0] else 0]
        cause = f"cannot be read to its end ({type(error).__name__}: {reason[:120]})"
        return None, [Problem(file, cause, "the file is damaged or not an image: copy or export it again")]
    if unusable:
        return None, unusable
    first: MetaTensor = image[0] if channels > 1 else image  # type: ignore[assignment]
    return first, wrong


def _header_problems(file: str, channels: int) -> Iterator[Problem]:
    problem = size_problem(file)
    if problem:
        yield problem
        return
    if os.path.isdir(file):
        problem = series_problem(file)
        if problem:
            yield problem
    elif is_picture(file):
        with large_pictures(), Image.open(file) as picture:
            pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            yield Problem(
                file, f"holds {pages} pages, and a picture has one", "convert it to NIfTI with its voxel size"
            )
    elif is_nifti(file):
        yield from _nifti_problems(file, channels)


def _nifti_problems(file: str, channels: int) -> Iterator[Problem]:
    image: Any = nibabel.load(file)
    dtype = image.get_data_dtype()
    if dtype.kind not in "biuf":
        kind = "complex numbers" if dtype.kind == "c" else "colors"
        yield Problem(file, f"its voxels are {kind}", "export it with one number a voxel")
    shape = image.shape[:3] if image.shape[3:] == (1,) else image.shape
    yield from _geometry_problems(file, shape, image.affine, channels)


def _kind_problems(file: str, shape: Sequence[int], kind: Kind | None) -> Iterator[Problem]:
    if kind == "volume" and is_picture(file):
        yield Problem(file, "is a picture, and the network takes volumes", "convert it to NIfTI with its voxel size")
    elif kind == "volume" and len(shape) != 3:
        sizes = " x ".join(map(str, shape))
        yield Problem(file, f"is 2D ({sizes}), and the network takes volumes", "save it with a third axis of length 1")
    elif kind == "picture" and not is_picture(file):
        yield Problem(file, "is not a picture", "convert it to PNG or JPEG")


def _geometry_problems(file: str, shape: Sequence[int], affine: np.ndarray, channels: int) -> list[Problem]:
    sizes = " x ".join(map(str, shape))
    if channels > 1 and (len(shape) != 4 or shape[-1] != channels):
        cause = f"is {len(shape)}D ({sizes}), and there are {channels} channels"
        return [Problem(file, cause, "name one file a channel, or store them along a fourth axis")]
    if channels == 1 and len(shape) not in (2, 3):
        return [Problem(file, f"is {len(shape)}D ({sizes}), not 2D or 3D", "split it into one file a volume")]
    if not np.isfinite(affine).all():
        return [Problem(file, "the affine has values that are not finite", "export the file again with its geometry")]
    if np.linalg.matrix_rank(affine[:-1, :-1]) < len(affine) - 1:
        return [Problem(file, "the affine is singular: some axis has no length", "export it again with its spacing")]
    return []


def _voxel_problems(file: str, image: MetaTensor) -> Iterator[Problem]:
    voxels = image.as_tensor()
    bad = int((~torch.isfinite(voxels)).sum())
    if bad:
        yield Problem(file, f"{bad} voxels are NaN or infinite", "replace them by finite values or export it again")
    elif voxels.abs().max() > LARGEST:
        cause = f"has voxels of up to {voxels.abs().max():.3g}, whose squares overflow float32"
        yield Problem(file, cause, "replace them by values that mean something, such as the minimum")
