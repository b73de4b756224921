# SPDX-License-Identifier: Apache-2.0
"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metassl_monai.files import atomic_write


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("old")
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_text_is_written_as_utf8_without_translation_of_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as file:
        file.write("Größe\r\nµm\n")
    assert path.read_bytes() == "Größe\r\nµm\n".encode()
    assert names(path) == ["file.txt"]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    with atomic_write(str(tmp_path / "file.bin"), "wb") as file:
        file.write(b"\x00\xff\r\n")
    assert (tmp_path / "file.bin").read_bytes() == b"\x00\xff\r\n"


def test_folder_is_created(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a" / "b" / "file.txt") as file:
        file.write("new")
    assert (tmp_path / "a" / "b" / "file.txt").read_text() == "new"


def test_old_file_is_there_until_all_is_written(old: Path) -> None:
    with atomic_write(old) as file:
        file.write("new")
        file.flush()
        assert old.read_text() == "old"
    assert old.read_text() == "new"


def test_temporary_file_lies_in_the_same_folder_and_is_hidden(old: Path) -> None:
    with atomic_write(old):
        [temporary] = [name for name in names(old) if name != "file.txt"]
        assert temporary.startswith(".file.txt.")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_error_in_the_body_leaves_the_old_file_and_no_other(old: Path, error: type[BaseException], mode: str) -> None:
    def write_half() -> None:
        with atomic_write(old, mode) as file:
            file.write("half of a" if mode == "w" else b"half of a")
            file.flush()
            raise error

    with pytest.raises(error):
        write_half()
    assert old.read_text() == "old"
    assert names(old) == ["file.txt"]


def test_error_in_the_body_makes_no_file_where_there_was_none(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_write(tmp_path / "file.txt") as file:
            file.write("half of a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_failing_disk_leaves_the_old_file_and_no_other(old: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space left"), atomic_write(old) as file:
        file.write("new")
    assert old.read_text() == "old"
    assert names(old) == ["file.txt"]


def test_file_is_synced_complete_before_it_takes_the_name(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def note_replace(source: str, target: Path) -> None:
        events.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    with atomic_write(old) as file:
        file.write("a new one")
    assert events == [("sync", 9), ("replace", 9)]


@pytest.mark.skipif(os.name == "nt", reason="no permission bits")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file.txt"):
            pass
        assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o666 & ~mask
        assert os.umask(mask) == mask  # left as it was
    finally:
        os.umask(before)
