# SPDX-License-Identifier: Apache-2.0
"""What files of weights and code are, told without loading them."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

import torch

__all__ = ["file_flag"]

_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".ts", ".tar", ".pkl", ".pickle", ".joblib")
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".ipynb", ".onnx", ".engine")
_MOST = 1 << 28
"""Bytes of the pickle in an archive: names and shapes of tensors, whose values are files of their own."""


def file_flag(file: Path) -> str | None:
    """Return what a file other than a config would do or may hide; None for plain tensors, texts and pictures.

    Plain tensors are an archive of PyTorch whose pickle names nothing but what ``torch.load(weights_only=True)``
    allows; its instructions are read, and none is followed.
    """
    suffix = file.suffix.lower()
    if suffix in _CODE:
        return "is code, which is not looked into"
    if suffix in _WEIGHTS or _begins_as_pickle(file):
        return _weights_flag(file)
    return None


def _weights_flag(file: Path) -> str | None:
    if not zipfile.is_zipfile(file):
        named = _named_in(file)
        about = f"; it names {', '.join(named[:5])}" if named else ""
        return f"is no archive of tensors, but a pickle or something else that may run code when it is loaded{about}"
    with zipfile.ZipFile(file) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        if "constants.pkl" in members or any(name.startswith("code/") for name in members):
            return "is TorchScript, a program"
        if "data.pkl" not in members:
            return "is an archive without tensors of PyTorch"
        if archive.getinfo(members["data.pkl"]).file_size > _MOST:
            return "holds a pickle that is too large for names of tensors"
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception as error:  # damaged or forged bytes make it raise nearly anything
        return f"cannot be read ({type(error).__name__})"
    return f"its pickle calls {', '.join(sorted(unsafe)[:5])}" if unsafe else None


def _begins_as_pickle(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(2)
    return len(start) == 2 and start[0] == 0x80 and start[1] <= 5


def _named_in(file: Path) -> list[str]:
    """The names that the instructions of a pickle mention, as far as they can be read."""
    named, texts = [], [""]
    try:
        with file.open("rb") as stream:
            for code, argument, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST"):
                    named.append(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    named.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # what is no pickle ends the reading
        return named
    return named
