# SPDX-License-Identifier: Apache-2.0
"""Where a training's MLflow run is kept, and how several processes open one database."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from metassl_monai.files import write_json

__all__ = ["TrackedRun", "opening"]

_SECONDS = 300


@contextmanager
def opening(uri: str | None) -> Iterator[None]:
    """Let one process at a time create the tables and experiments of a SQLite file; other places need no lock.

    Example::

        >>> with opening("http://localhost:5000"):
        ...     pass
    """
    file = _sqlite_file(uri)
    if file is None:
        yield
    else:
        file.parent.mkdir(parents=True, exist_ok=True)  # as MLflow would
        with FileLock(f"{file}.lock", timeout=_SECONDS):
            yield


def _sqlite_file(uri: str | None) -> Path | None:
    name = (uri or "").partition("sqlite:///")[2]
    return None if name in ("", ":memory:") else Path(name)


class TrackedRun:
    """A small JSON file that names the tracking server and the run of a training.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> dict[str, str]:
        """Return ``tracking_uri`` and ``run_id``; nothing where the file is missing or damaged."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: content[key] for key in ("tracking_uri", "run_id")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write(self, uri: str | None, run_id: str) -> None:
        """Remember a run."""
        write_json(self.path, {"tracking_uri": uri, "run_id": run_id})

    def forget(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def place(self, uri: str | None) -> str | None:
        """Return where to go on: a database that is there already rather than one that would be made anew.

        The default database lies in the current folder, which may be another one when a training is resumed.
        """
        known = self.read().get("tracking_uri")
        old, new = _sqlite_file(known), _sqlite_file(uri)
        return known if old is not None and old.is_file() and new is not None and not new.is_file() else uri

    def find(self, client: Any, uri: str | None) -> Any:
        """Return the run, ``None`` where it is kept elsewhere or was deleted."""
        known = self.read()
        if known.get("tracking_uri") == uri and known:
            for run in _existing(client, known["run_id"]):
                return run
        if known:
            logging.getLogger(__name__).warning(
                "the MLflow run %s of this training is not in %s: a new run goes on there", known["run_id"], uri
            )
        return None


def _existing(client: Any, run_id: str) -> Iterator[Any]:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if run.info.lifecycle_stage == "active":
        yield run
