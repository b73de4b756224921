# SPDX-License-Identifier: Apache-2.0
"""ITK, which reads what is neither NIfTI nor a picture: NRRD, MetaImage, DICOM. It is large, so an extra brings it."""

from __future__ import annotations

import os
from typing import Any

from .problems import DatalistError

__all__ = ["itk_header", "itk_reading"]


def itk_reading(file: str | os.PathLike[str]) -> Any:
    """Return the package ITK for reading a file or a folder of DICOM slices.

    Raises:
        DatalistError: a ``ValueError`` that says how to install it, where it is not.
    """
    try:
        import itk
    except ModuleNotFoundError:
        remedy = "pip install itk-io, or convert it to NIfTI"
        raise DatalistError(file, "is read by ITK, which is not installed", remedy) from None
    return itk


def itk_header(file: str | os.PathLike[str]) -> Any:
    """Return the ``itk.ImageIOBase`` of a file that has read its header, None where ITK knows no such format.

    Raises:
        DatalistError: where ITK is not installed.
        RuntimeError: what ITK says of a damaged header.
    """
    itk = itk_reading(file)
    header: Any = itk.ImageIOFactory.CreateImageIO(os.fspath(file), itk.CommonEnums.IOFileMode_ReadMode)
    if header is not None:
        header.SetFileName(os.fspath(file))
        header.ReadImageInformation()
    return header
