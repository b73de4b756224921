# SPDX-License-Identifier: Apache-2.0
"""What a training runs with and on, read off its engine, so that no config has to say it twice."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import monai
import torch

import metassl_monai

__all__ = ["data_fingerprints", "run_facts"]

_SECONDS = 10


def run_facts(engine: Any) -> dict[str, Any]:
    """Return what people look for first when they compare trainings.

    Args:
        engine: a trainer; what it lacks is left out.

    Returns:
        ``network``, ``parameters``, ``optimizer``, ``learning_rate``, ``labeled_cases``, ``unlabeled_cases``,
        ``device``, versions, and ``git_commit`` of this package where it is a checkout, with ``-dirty`` where that is
        changed.
    """
    facts: dict[str, Any] = {}
    network = getattr(engine, "network", None)
    if network is not None:
        facts["network"] = type(network).__name__
        facts["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    optimizer = getattr(engine, "optimizer", None)
    if optimizer is not None:
        facts["optimizer"] = type(optimizer).__name__
        facts["learning_rate"] = optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"])
    facts |= {f"{name}_cases": print_["cases"] for name, print_ in data_fingerprints(engine).items()}
    facts["device"] = _device(getattr(engine.state, "device", torch.device("cpu")))
    versions = {"torch": torch.__version__, "monai": monai.__version__, "metassl_monai": metassl_monai.__version__}
    facts |= {"python": platform.python_version(), **versions}
    commit = _commit(Path(metassl_monai.__file__).parent)
    return {**facts, "git_commit": commit} if commit else facts


def data_fingerprints(engine: Any) -> dict[str, dict[str, Any]]:
    """Return of the labeled and the unlabeled cases how many they are, and a digest of names and sizes of their files.

    Args:
        engine: a trainer; a stream whose data set tells no files is left out.
    """
    streams: Mapping[str, Any] = getattr(getattr(engine, "data_loader", None), "streams", {})
    prints = {}
    for name, loader in streams.items():
        items = getattr(loader.dataset, "data", None)
        if isinstance(items, list) and items and all(isinstance(item, Mapping) for item in items):
            files = sorted({entry for item in items for entry in _files(item)})
            digest = hashlib.sha256("\n".join(files).encode()).hexdigest()[:32]
            if files:
                prints[name] = {"cases": len(items), "digest": digest}
    return prints


def _files(item: Mapping[str, Any]) -> Iterator[str]:
    for key in ("image", "label"):
        value = item.get(key)
        for file in value if isinstance(value, list) else [value]:
            if isinstance(file, str | os.PathLike) and os.path.exists(file):
                yield f"{key} {os.path.basename(file)} {os.path.getsize(file)}"


def _device(device: Any) -> str:
    device = torch.device(device)
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads"


def _commit(package: Path) -> str:
    """Return the commit of a checkout, nothing of an installed package, even one below somebody's repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        return (
            git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
            if git("ls-files", "__init__.py")
            else ""
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a slow disk
        return ""
