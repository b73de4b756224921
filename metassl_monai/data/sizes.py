# SPDX-License-Identifier: Apache-2.0
"""How much an image claims to hold, beside what its file can hold and the machine can read.

A header of a few bytes can ask for more memory than there is, and a small compressed file can hold a thousand times
its size; both end a program without a word. What a header says is therefore compared before a voxel is read.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
from PIL import Image

from .formats import is_nifti
from .itk_files import itk_header
from .pictures import is_picture, large_pictures
from .problems import Problem

__all__ = ["memory_to_read", "read_to_end", "size_problem"]

BYTES_A_VOXEL = 16
"""What reading and checking take at their peak: the float32 copy, its masks and what is on its way."""

DEFLATE = 1032
"""The most bytes that gzip and PNG can make of one; 258 of a match in two bits (zlib's technical notes)."""

_SLACK = 1 << 20
"""Bytes that may follow the last voxel, such as the tags of MGH."""

_REMEDY = "the header or the file is damaged: copy or export it again"


def size_problem(file: str) -> Problem | None:
    """Return what is wrong where a header asks for more than the file can hold or the machine can read.

    Args:
        file: of any format; of DICOM, whose slices are files, nothing is said.

    Raises:
        Exception: whatever the reader of a damaged header raises.
    """
    if os.path.isdir(file):
        return None
    shape, stored, source, offset = _claim(file)
    held = offset + math.prod(shape) * stored
    size = os.path.getsize(source)
    packed = source.lower().endswith((".gz", ".mgz"))
    sizes = " x ".join(map(str, shape))
    if packed and held > size * DEFLATE:
        cause = f"its header claims {sizes} voxels, {_said(held)}, which no {_said(size)} of gzip can hold"
        return Problem(file, cause, _REMEDY)
    if source.lower().endswith((".nii", ".img", ".mgh")) and held > size:
        cause = f"its header claims {sizes} voxels, {_said(held)}, and the file has {_said(size)}"
        return Problem(file, cause, _REMEDY)
    needed, there = math.prod(shape) * BYTES_A_VOXEL, _memory()
    if needed > there:
        cause = f"to read its {sizes} voxels takes about {_said(needed)} of memory, and this machine has {_said(there)}"
        return Problem(file, cause, "export it again if the header is damaged, crop it, or use a larger machine")
    return None


def memory_to_read(file: str) -> float:
    """Return about how much of the machine's memory it takes to read a file, 0 to 1; 0 where no header tells.

    Example:
        >>> memory_to_read("nowhere.nii")
        0.0
    """
    if not os.path.isfile(file):  # missing, or a folder of DICOM slices
        return 0.0
    try:
        return math.prod(_claim(file)[0]) * BYTES_A_VOXEL / _memory()
    except Exception:  # what is wrong with it is told where it is read
        return 0.0


def read_to_end(file: str) -> str | None:
    """Read a file of gzip piece by piece and let it compare its checksum; other files are left alone.

    Readers stop at the last voxel and never reach the checksum.

    Returns:
        What is wrong where more comes out than the header claims; the reading stops there.

    Raises:
        Exception: what the damage of a file makes gzip raise.
    """
    if not file.lower().endswith((".gz", ".mgz")) or not os.path.isfile(file):
        return None
    shape, stored, _, offset = _claim(file)
    limit = offset + math.prod(shape) * stored + _SLACK
    done = 0
    with gzip.open(file) as stream:
        while piece := stream.read(1 << 20):
            done += len(piece)
            if done > limit:
                return f"holds more than the {_said(limit - _SLACK)} that its header claims"
    return None


def _claim(file: str) -> tuple[Sequence[int], int, str, int]:
    """The shape, the bytes of one stored voxel, the file that holds them, and where in it they begin."""
    if is_nifti(file):
        image: Any = nibabel.load(file)
        proxy = image.dataobj
        source = image.file_map["image"].filename
        return [*map(int, proxy.shape)], proxy.dtype.itemsize, os.fspath(source), int(proxy.offset)
    if is_picture(file):
        with large_pictures(), Image.open(file) as picture:
            return [*picture.size, len(picture.getbands())], 1, file, 0
    header = itk_header(file)
    if header is None:
        return [0], 1, file, 0
    shape = [header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())]
    return [*shape, header.GetNumberOfComponents()], header.GetComponentSize(), file, 0


def _memory() -> float:
    """The machine's bytes of memory, or those that a container leaves of it; infinite where nothing tells."""
    try:
        there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # as on Windows
        return math.inf
    try:
        return min(there, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or one without limit
        return there


def _said(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.4g} TB"
