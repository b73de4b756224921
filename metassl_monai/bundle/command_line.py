# SPDX-License-Identifier: Apache-2.0
"""What MONAI's command line was given: ids that no config knows, and the config that came of it."""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from .command_values import config_order_mistakes, value_mistakes, word_mistakes
from .errors import refuse, silence_mistakes, tell_root_cause
from .locate import left_behind

__all__ = ["check_command_line", "command_mistakes", "running_config", "running_parser", "unknown_ids"]


def check_command_line(argv: Sequence[str] | None = None) -> None:
    """Stop before anything is written if ``python -m monai.bundle run`` was given what it would not do.

    An id that no config knows, a word that would be ignored, a value that its id does not take, config files in an
    order that undoes one of them. From here on a mistake that the package finds while MONAI builds the run is one
    message, too.

    Args:
        argv: the command line, ``sys.argv`` if left out.

    Raises:
        UserError: with one message that names each of them and the remedy.
    """
    argv = sys.argv if argv is None else argv
    if _is_monai_bundle(argv):
        sys.excepthook = tell_root_cause
        silence_mistakes()
    refuse(command_mistakes(argv))


def running_config() -> Any:
    """Return the whole config that is being evaluated, for ``$metassl_monai.bundle.running_config()`` in a config.

    It is what really runs: all files merged, then the overrides and the tracking settings.

    Returns:
        The config, ``None`` where none is being evaluated.
    """
    parser = running_parser()
    return None if parser is None else parser.get()


def running_parser() -> ConfigParser | None:
    """Return the parser whose config is being evaluated.

    MONAI hands expressions no reference to it, so it is taken from up the call stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
        frame = frame.f_back
    return None


def command_mistakes(argv: Sequence[str]) -> Iterator[str]:
    """Yield a message for each mistake of a ``python -m monai.bundle run``; other programs are left alone."""
    if not _is_monai_bundle(argv):
        return
    mistakes = list(word_mistakes(argv[1:]))
    given = dict(_flags(argv[1:]))
    if not mistakes and "config_file" in given:
        files = _files(given["config_file"])
        contents = [ConfigParser.load_config_file(file) for file in files]
        mistakes += config_order_mistakes(files, contents)
        if "bundle_root" not in given:
            mistakes += _moved_bundles(files, contents)
    yield from mistakes
    if not mistakes and "config_file" in given:  # else they cannot be merged, or values are not where they should be
        yield from unknown_ids(argv)
        yield from value_mistakes(given, _read(given["config_file"]).get())


def _moved_bundles(files: Sequence[str], contents: Sequence[dict[str, Any]]) -> Iterator[str]:
    for file, content in zip(map(Path, files), contents, strict=True):
        if old := left_behind(file, content):
            new = file.resolve().parents[1]
            yield f"{file}: was written for {old}, where this would work: give --bundle_root {new}."


def unknown_ids(argv: Sequence[str]) -> Iterator[str]:
    """Yield a message for each ``--id`` of a ``python -m monai.bundle run`` that no config knows.

    MONAI accepts any id in silence, so that ``--iteration 100`` would train for the default number of iterations.
    """
    given = dict(_flags(argv[1:])) if _is_monai_bundle(argv) else {}
    if "config_file" not in given:  # no command of MONAI's, or named in an args_file, which MONAI reads itself
        return
    parser = _read(given["config_file"])
    known = set(parser.get()) | set(inspect.signature(monai.bundle.run).parameters)
    tracking = given.get("tracking", "")
    if tracking in DEFAULT_EXP_MGMT_SETTINGS:
        settings: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS[tracking]
        known |= set(settings["configs"])
    elif Path(tracking).is_file():
        known |= set(ConfigParser.load_config_file(tracking)["configs"])
    for name in given:
        parent, _, _ = name.rpartition("::")
        target = parser[parent] if parent and parent in parser else None
        # an argument that the config leaves at its default is new to the config but not to its target
        if name in known or (parent and name in parser) or (isinstance(target, dict) and "_target_" in target):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        where = " and ".join(_files(given["config_file"]))
        hint = f"Did you mean --{near[0]}?" if near else f"See the ids in {where}."
        yield f"--{name}: no config id of this name. {hint}"


def _read(config_file: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(_literal(config_file))
    return parser


def _is_monai_bundle(argv: Sequence[str]) -> bool:
    return Path(argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for i, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            following = arguments[i + 1] if i + 1 < len(arguments) else ""
            # Fire takes a dash for an underscore
            yield name.replace("#", "::").replace("-", "_").lstrip("+"), value if equals else following


def _literal(value: str) -> str | list[str]:
    return ast.literal_eval(value) if value.startswith("[") else value


def _files(config_file: str) -> list[str]:
    # several files may also be one text, with commas
    names = _literal(config_file)
    return [str(name) for name in (names.split(",") if isinstance(names, str) else names)]
