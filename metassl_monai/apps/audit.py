# SPDX-License-Identifier: Apache-2.0
"""What a bundle would run, read without running it: targets, expressions, places and weights."""

from __future__ import annotations

import configparser
import json
import os
import stat
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from metassl_monai.bundle.errors import UserError

from .audit_expressions import expression_flags, imported_names, path_flag
from .audit_names import name_mistake
from .audit_weights import file_flag
from .show import show_json

_identity = id  # elsewhere ids are those of a config
__all__ = ["Finding", "audit_bundle", "print_audit"]

_CONFIGS = (".json", ".yaml", ".yml")
_TEXTS = ("_desc_", "schema", "references", "copyright", "changelog")
"""Ids whose texts are for readers, so that an address in them is none that a run would use."""
_LARGEST = 10**11
"""Bytes that an archive may claim to hold."""


class Finding(NamedTuple):
    """One thing that a bundle holds."""

    kind: str  # target, expression, place or file
    text: str
    where: str  # the file, and the id in it
    flags: tuple[str, ...] = ()  # why it is not known to be harmless


def audit_bundle(bundle: str | Path) -> list[Finding]:
    """Read every config, log setting and file of weights of a bundle; nothing is run, imported or unpickled.

    Args:
        bundle: its folder, or a zip archive of one, which is unpacked without what would leave the folder.

    Returns:
        All targets and expressions, and of places and files those that are flagged.

    Raises:
        UserError: if there is no such bundle.
    """
    path = Path(bundle)
    if path.is_dir():
        return list(_folder(path))
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: is no folder and no zip archive: name a bundle.")
    with TemporaryDirectory(prefix="metassl-audit-") as folder:
        return [*_unpack(path, Path(folder)), *_folder(Path(folder))]


def print_audit(bundle: str | Path, as_json: bool = False) -> None:
    """Print what a bundle would run, each thing once, what is flagged last; or every finding as JSON.

    Raises:
        UserError: with exit status 1, if something is flagged.
    """
    findings = audit_bundle(bundle)
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        _print_findings(findings)
    if any(finding.flags for finding in findings):
        raise UserError(1)


def _print_findings(findings: Sequence[Finding]) -> None:
    places: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for finding in findings:
        places.setdefault((finding.kind, finding.text, finding.flags), []).append(finding.where)
    for (kind, text, flags), where in sorted(places.items(), key=lambda item: (bool(item[0][2]), item[0])):
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        sys.stdout.write(f"{'FLAGGED' if flags else 'known':8}{kind:11}{text[:200]!r}  ({where[0]}{more})\n")
        sys.stdout.writelines(f"{'':8}{flag}\n" for flag in flags)
    flagged = sum(bool(flags) for _, _, flags in places)
    sys.stdout.write(f"{len(places)} different things in {len(findings)} places, {flagged} of them flagged\n")


def _folder(root: Path) -> Iterator[Finding]:
    contents: dict[str, Any] = {}
    for folder, folders, names in os.walk(root):
        for name in sorted([*folders, *names]):
            file = Path(folder, name)
            where = file.relative_to(root).as_posix()
            if file.is_symlink() and not file.resolve().is_relative_to(root.resolve()):
                yield Finding("file", name, where, ("is a link that leads out of the bundle",))
            elif not file.is_file():
                continue
            elif file.suffix.lower() in _CONFIGS:
                try:
                    contents[where] = _read(file)
                except Exception as error:  # damaged or hostile text makes readers raise nearly anything
                    yield Finding("file", name, where, (f"cannot be read ({type(error).__name__})",))
            elif file.suffix.lower() in (".conf", ".cfg", ".ini"):
                yield from _log_settings(file, where)
            elif flag := file_flag(file):
                yield Finding("file", name, where, (flag,))
    expressions = (x for content in contents.values() for _, x in _texts(content) if x.startswith("$"))
    names_of = imported_names(expressions)
    for where, content in contents.items():
        yield from _config(content, where, names_of)


def _read(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    if file.suffix.lower() == ".json":
        return json.loads(text)
    import yaml

    return yaml.safe_load(text)


def _config(content: Any, where: str, names: dict[str, str]) -> Iterator[Finding]:
    for id, text in _texts(content):
        key = id.rpartition("::")[2]
        place = f"{where}: {id}"
        if text.startswith("$"):
            flags = expression_flags(text, names)
            if key == "_target_":
                flags.append("a target that is only known when it runs")
            yield Finding("expression", text, place, tuple(flags))
        elif key == "_target_":
            yield Finding("target", text, place, tuple(filter(None, [_target_flag(text)])))
        elif key == "_mode_" and text == "debug":
            yield Finding("target", text, place, ("stops in a debugger, which runs what is typed",))
        elif not set(id.split("::")).intersection(_TEXTS) and (flag := path_flag(text.lstrip("%"))):
            yield Finding("place", text, place, (flag,))


def _texts(content: Any, id: str = "") -> Iterator[tuple[str, str]]:
    stack, seen = [(id, content)], set()  # no recursion, which a deep config would exhaust
    while stack:
        id, value = stack.pop()
        if isinstance(value, dict | list):
            if _identity(value) in seen:  # YAML's aliases are one object, and may make billions of a few
                continue
            seen.add(_identity(value))
        if isinstance(value, dict):
            stack += [(f"{id}::{key}" if id else str(key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            stack += [(f"{id}::{i}", item) for i, item in reversed(list(enumerate(value)))]
        elif isinstance(value, str):
            yield id, value


def _target_flag(target: str) -> str | None:
    if "." in target:
        return name_mistake(target)
    from monai.bundle.config_item import ComponentLocator

    modules = ComponentLocator().get_component_module_name(target)
    if modules is None:
        return f"{target} is no name of MONAI's"
    module = modules if isinstance(modules, str) else modules[0]
    return name_mistake(f"{module}.{target}")


def _log_settings(file: Path, where: str) -> Iterator[Finding]:
    """Python evaluates the classes and arguments of handlers in such a file."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        yield Finding("file", file.name, where, (f"cannot be read ({type(error).__name__})",))
    for section in parser.sections():
        for key, value in parser.items(section):
            known = value in ("StreamHandler", "logging.StreamHandler", "(sys.stdout,)", "(sys.stderr,)", "()")
            if key in ("class", "args", "kwargs", "()", "factory"):
                flags = () if known else ("Python evaluates it, and it is none of the usual values",)
                yield Finding("expression", value, f"{where}: {section}.{key}", flags)


def _unpack(archive: Path, folder: Path) -> Iterator[Finding]:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        if sum(member.file_size for member in members) > _LARGEST:
            raise UserError(f"{archive}: claims to hold more than {_LARGEST / 1e9:g} GB: it is not unpacked.")
        for member in members:
            name, windows = PurePosixPath(member.filename), PureWindowsPath(member.filename)
            if name.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
                yield Finding("file", member.filename, archive.name, ("a name that leaves the folder",))
            elif stat.S_ISLNK(member.external_attr >> 16):
                yield Finding("file", member.filename, archive.name, ("is a link",))
            else:
                source.extract(member, folder)
