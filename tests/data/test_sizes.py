# SPDX-License-Identifier: Apache-2.0
"""A header that claims the impossible, and a file that holds more than it says, are one message and cost no memory."""

from __future__ import annotations

import gzip
import os
import resource
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from metassl_monai.data import check_images, parallel, read_scan, sizes
from metassl_monai.data.parallel import for_each_case
from metassl_monai.data.problems import DatalistError


def nifti(file: Path, shape: tuple[int, ...], claimed: tuple[int, ...] = (), dtype: Any = np.int16) -> Path:
    """Write zeros, under a header that may claim another shape."""
    image = nibabel.Nifti1Image(np.zeros(shape, dtype), np.eye(4))
    header = image.header.copy()
    header.set_data_shape(claimed or shape)
    header["vox_offset"] = 352
    content = header.binaryblock + b"\0" * 4 + np.zeros(shape, dtype).tobytes()
    file.write_bytes(gzip.compress(content, 9) if file.suffix == ".gz" else content)
    return file


def png(file: Path, width: int, height: int) -> Path:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )
    return file


def nrrd(file: Path, sizes: str) -> Path:
    text = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: raw\n\n"
    file.write_bytes(text.encode() + bytes(1000))
    return file


HUGE = (32767, 32767, 32767)
CLAIMS = {
    "a small .nii": (lambda folder: nifti(folder / "a.nii", (8, 8, 8), HUGE), "70.36 TB, and the file has 1.38 kB"),
    "a small .nii.gz": (lambda folder: nifti(folder / "a.nii.gz", (8, 8, 8), HUGE), "70.36 TB, which no"),
    "a cut .nii": (
        lambda folder: nifti(folder / "a.nii", (8, 8, 8), (8, 8, 9)),
        "claims 8 x 8 x 9 voxels, 1.5 kB, and",
    ),
    "a picture": (lambda folder: png(folder / "a.png", 2**20, 2**20), "decompression bomb"),
    "an NRRD": (
        lambda folder: nrrd(folder / "a.nrrd", "32767 32767 32767"),
        "562.9 TB of memory, and this machine has",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_header_that_claims_more_than_there_can_be_is_one_message_and_quick(name: str, tmp_path: Path) -> None:
    write, cause = CLAIMS[name]
    file = write(tmp_path)
    check_images([nrrd(tmp_path / "sound.nrrd", "4 4 4")])  # to load ITK takes longer than the check
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (problem,) = check_images([file])
    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert problem.file == str(file)
    assert cause in problem.cause
    assert problem.remedy
    with pytest.raises(Exception, match=r"claims|memory|bomb"):  # a training that checks no data
        read_scan(file)


def test_an_image_larger_than_the_memory_is_told_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, picture = nifti(tmp_path / "a.nii.gz", (64, 64, 64)), png(tmp_path / "a.png", 512, 512)
    assert check_images([file]) == []
    monkeypatch.setattr(sizes, "_memory", lambda: 1e6)
    (problem,) = check_images([file])
    assert "to read its 512 x 512 x 1 voxels takes about 4.19 MB of memory" in check_images([picture])[0].cause
    with pytest.raises(DatalistError, match=r"takes about 4\.19 MB of memory"):
        read_scan(picture)
    assert problem.cause == ("to read its 64 x 64 x 64 voxels takes about 4.19 MB of memory, and this machine has 1 MB")


def test_a_compressed_bomb_is_left_when_it_holds_more_than_its_header_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = nifti(tmp_path / "a.nii.gz", (1000, 500, 500), (8, 8, 8), np.uint8)  # 250 MB in 243 kB
    assert file.stat().st_size < 300_000
    read: list[int] = []
    whole = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int = -1) -> bytes:
        read.append(size)
        return whole(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    (problem,) = check_images([file])
    assert problem.cause == "holds more than the 864 bytes that its header claims"
    assert sum(read) <= 4 << 20


def test_a_sound_image_of_one_value_passes_however_small_its_file_is(tmp_path: Path) -> None:
    file = nifti(tmp_path / "a.nii.gz", (200, 200, 50), dtype=np.uint8)
    assert 2_000_000 / file.stat().st_size > 900
    assert check_images([file]) == []


def test_a_few_bytes_behind_the_last_voxel_are_no_bomb(tmp_path: Path) -> None:
    file = nifti(tmp_path / "a.nii.gz", (8, 8, 9), (8, 8, 8))
    assert check_images([file]) == []


def test_memory_is_that_of_the_machine_or_less() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < sizes._memory() <= physical


def test_threads_find_what_one_thread_finds_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [nifti(tmp_path / f"{i}.nii.gz", (8, 8, 8), HUGE if i % 3 == 0 else (8, 8, 8)) for i in range(20)]
    files[7].unlink()
    found = []
    for threads in (1, 8):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda threads=threads: threads)
        found.append(check_images(files))
    assert found[0] == found[1]
    assert [Path(problem.file).name for problem in found[0]] == [f"{i}.nii.gz" for i in (0, 3, 6, 7, 9, 12, 15, 18)]


@pytest.mark.parametrize(("share", "together"), [(0.0, 4), (0.3, 1)])
def test_large_cases_are_read_one_at_a_time(share: float, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(parallel, "memory_to_read", lambda file: share)
    inside, most, lock = [0], [0], threading.Lock()

    def look(case: int) -> int:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        with lock:
            inside[0] -= 1
        return case

    assert list(for_each_case(look, range(8), lambda case: ["file"])) == list(range(8))
    assert most[0] == together


def test_a_check_that_is_interrupted_reads_no_further_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    seen: list[int] = []

    def look(case: int) -> None:
        seen.append(case)
        time.sleep(0.02)
        if case == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(for_each_case(look, range(500), lambda case: []))
    assert len(seen) < 20
