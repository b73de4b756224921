# SPDX-License-Identifier: Apache-2.0
"""Where the bundles lie, and the command lines that run them."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import metassl_monai

from .errors import UserError
from .writable import check_writable

__all__ = [
    "bundle_command",
    "bundle_names",
    "bundle_path",
    "checked_command",
    "config_files",
    "copy_bundle",
    "left_behind",
    "run_bundle",
    "run_command",
    "run_side_by_side",
]


def bundles_root() -> Path:
    """Return the folder of the bundles: inside the installed package, or beside it in a checkout."""
    package = Path(metassl_monai.__file__).parent
    installed = package / "bundles"
    return installed if installed.is_dir() else package.parent / "bundles"


def bundle_names() -> list[str]:
    """Return the names of the bundles that come with the package."""
    return sorted(path.parents[1].name for path in bundles_root().glob("*/configs/metadata.json"))


def bundle_path(name: str) -> Path:
    """Return the folder of a bundle, by a path to it or by its name; one in the working folder goes first.

    Raises:
        UserError: when there is no such bundle.
    """
    for path in (Path(name), bundles_root() / name):
        if (path / "configs" / "metadata.json").is_file():
            return path
    here = [file.parents[1].name for file in Path().glob("*/configs/metadata.json")]
    near = difflib.get_close_matches(name, [*here, *bundle_names()], n=1)
    choice = f"choose one of {', '.join(bundle_names())}, or give the path of a bundle."
    hint = f"did you mean {near[0]}?" if near else choice
    raise UserError(f"no bundle {name!r}: {hint}")


def copy_bundle(name: str, out: Path) -> Path:
    """Copy a bundle to ``out / name``, to change it or to hand it on.

    Raises:
        UserError: when there is no such bundle, something of its name in ``out``, or ``out`` cannot be written to.
    """
    source = bundle_path(name)
    target = out / source.name
    if target.exists():
        raise UserError(f"{target} exists already: choose another folder with --out, or remove it.")
    check_writable(target)
    shutil.copytree(source, target)
    return target


def left_behind(file: Path, config: Mapping[str, Any]) -> Path | None:
    """Return the folder that a config calls its bundle's where it lies in another one: it was moved or copied.

    Args:
        file: the config, ``BUNDLE/configs/NAME.json``.
        config: its content. A ``bundle_root`` that is no absolute path is where the program is started.
    """
    root = Path(str(config.get("bundle_root", ".")))
    moved = root.is_absolute() and file.parent.name == "configs" and root.resolve() != file.resolve().parents[1]
    return root if moved else None


def config_files(bundle: Path, names: Sequence[str]) -> list[Path]:
    """Return the config files of a bundle by their names without ``.json``.

    Raises:
        UserError: when the bundle lacks one of them.
    """
    files = [bundle / "configs" / f"{name}.json" for name in names]
    for file in files:
        if not file.is_file():
            known = sorted(path.stem for path in file.parent.glob("*.json"))
            near = difflib.get_close_matches(file.stem, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            raise UserError(f"{bundle.name} has no config {file.stem!r}: {hint}")
    return files


def bundle_command(run_id: str, configs: Sequence[Path], arguments: Sequence[str] = ()) -> list[str]:
    """Return ``python -m monai.bundle run ...`` for these config files, merged in their order."""
    files = str([str(path) for path in configs]) if len(configs) > 1 else str(configs[0])
    return ["python", "-m", "monai.bundle", "run", run_id, "--config_file", files, *arguments]


def checked_command(run_id: str, configs: Sequence[Path], arguments: Sequence[str] = ()) -> list[str]:
    """Return the command of :func:`bundle_command`, unless it has an id that no config knows.

    Raises:
        UserError: with the unknown id.
    """
    from .command_line import check_command_line

    command = bundle_command(run_id, configs, arguments)
    # MONAI ends in a traceback at an id inside an unknown one before a check of the bundle's own could run
    check_command_line(["monai/bundle/__main__.py", *command[3:]])
    return command


def run_bundle(run_id: str, configs: Sequence[Path], arguments: Sequence[str] = ()) -> None:
    """Print and run the command of :func:`checked_command`.

    Raises:
        UserError: with the unknown id, or with the exit status of the command when it fails.
    """
    run_command(checked_command(run_id, configs, arguments))


def run_command(command: Sequence[str]) -> None:
    """Print a command and run it with this Python; after ``metassl --quiet`` say nothing, nor let its log be seen.

    Raises:
        UserError: with the command's exit status, when it fails.
    """
    quiet = "METASSL_QUIET" in os.environ
    if not quiet:
        sys.stdout.write(f"$ {' '.join(map(_quoted, command))}\n")
        sys.stdout.flush()
    # what went wrong is told on the standard error
    status = _status([sys.executable, *(["-W", "ignore"] if quiet else []), *command[1:]], quiet)
    if status != 0:
        raise UserError(status)


def run_side_by_side(commands: Mapping[Path, Sequence[str]]) -> None:
    """Run commands with this Python at the same time, each with its share of the processors.

    Args:
        commands: by the file that takes what each prints, at its end.

    Raises:
        UserError: with the file, when a command fails; the others are stopped.
    """
    threads = max(1, (os.cpu_count() or 1) // len(commands))
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONWARNINGS": "ignore"}
    children: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        for file, command in commands.items():
            log = stack.enter_context(file.open("a"))
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            run = [sys.executable, *command[1:]]
            child = subprocess.Popen(run, env=environment, stdout=log, stderr=subprocess.STDOUT)
            children.append(stack.enter_context(child))
            stack.callback(child.terminate)
        with _passing_stops_on(children):
            for file, child in zip(commands, children, strict=True):
                if _wait(child) != 0:
                    raise UserError(f"{file}: a command failed; the end of this file says why.")


def _quoted(word: str) -> str:
    """Quote a word for a shell; lists of files are legible in double quotes, between which few signs mean something."""
    return f'"{word}"' if "'" in word and not {*'"$`\\!'} & {*word} else shlex.quote(word)


def _status(command: Sequence[str], quiet: bool) -> int:
    """Run a command and return its exit status; it is stopped with this program and does not go on without it."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
    with _passing_stops_on([child]):
        status = _wait(child)
    return status if status >= 0 else 128 - status  # as shells have it


@contextmanager
def _passing_stops_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand a request to stop this program on to those that it waits for."""

    def pass_on(number: int, _: Any) -> None:
        for child in children:
            child.send_signal(number)

    in_charge = threading.current_thread() is threading.main_thread()
    stops = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if in_charge and hasattr(signal, name)]
    before = {number: signal.signal(number, pass_on) for number in stops}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait()
    except KeyboardInterrupt:  # the terminal sends Ctrl-C to both, and the child has something to say about it
        return child.wait()
