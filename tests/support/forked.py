# SPDX-License-Identifier: Apache-2.0
"""``python -m MODULE`` in a process that is forked from one which has imported everything.

To import MONAI and MLflow takes longer than most of what the tests run. Signals, two processes and the first command of
the README are tested with processes that start from nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "monai.bundle",
        "mlflow",
        "itk",
        "nibabel",
        *(f"metassl_monai.{room}" for room in ("bundle", "engines", "handlers")),
    ]
)


def run_module(
    arguments: Sequence[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -W ignore -m ARGUMENTS...`` and return its exit status and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        process = _processes.Process(target=_be_module, args=(list(arguments), cwd, dict(environment or {}), *streams))
        process.start()
        process.join()
        out, err = (stream.read_text(encoding="utf-8") if stream.exists() else "" for stream in streams)
    return subprocess.CompletedProcess(list(arguments), process.exitcode or 0, out, err)


def _be_module(arguments: list[str], cwd: Path | None, environment: dict[str, str], out: Path, err: Path) -> None:
    for number, stream in enumerate((out, err), start=1):
        with stream.open("wb") as file:
            os.dup2(file.fileno(), number)
    if cwd is not None:
        os.chdir(cwd)
        sys.path.insert(0, str(cwd))
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    sys.argv = list(arguments)
    os._exit(_status(arguments[0]))


def _status(module: str) -> int:
    """Run a module and return its exit status, as the interpreter ends."""
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        status = 1
        try:
            sys.excepthook(*sys.exc_info())
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status
