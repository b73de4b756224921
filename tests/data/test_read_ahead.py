# SPDX-License-Identifier: Apache-2.0
"""One batch is read ahead, none is lost, and an error comes in its place."""

from __future__ import annotations

import threading
from threading import Event

import pytest
from torch.utils.data import Dataset

from metassl_monai.data import ReadAheadDataLoader


class Watched(Dataset):
    """Numbers from 0 on, and whether each was read; the one in ``broken`` cannot be."""

    def __init__(self, length, broken=None):
        self.read = [Event() for _ in range(length)]
        self.broken = broken

    def __len__(self):
        return len(self.read)

    def __getitem__(self, index):
        self.read[index].set()
        if index == self.broken:
            raise OSError(f"cannot read {index}")
        return index


def test_the_next_one_is_read_while_this_one_is_worked_on_and_no_other():
    dataset = Watched(4)
    batches = iter(ReadAheadDataLoader(dataset, batch_size=1))
    assert next(batches).item() == 0
    assert dataset.read[1].wait(10)
    assert not dataset.read[2].wait(0.2)
    assert [batch.item() for batch in batches] == [1, 2, 3]


def test_it_can_be_read_again():
    loader = ReadAheadDataLoader(Watched(3), batch_size=2)
    assert len(loader) == 2
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[0, 1], [2]]


@pytest.mark.parametrize("broken", range(3))
def test_an_error_comes_after_all_that_was_read_before_it(broken):
    found = []
    with pytest.raises(OSError, match=f"cannot read {broken}"):
        found.extend(batch.item() for batch in ReadAheadDataLoader(Watched(3, broken), batch_size=1))
    assert found == list(range(broken))


def test_nothing_is_read_of_an_empty_data_set():
    assert list(ReadAheadDataLoader([], batch_size=1)) == []


def test_a_loop_that_ends_early_lets_go():
    dataset = Watched(5)
    for batch in ReadAheadDataLoader(dataset, batch_size=1):
        assert batch.item() == 0
        break
    assert not dataset.read[2].wait(0.2)
    assert not any(thread.name.startswith("read ahead") for thread in threading.enumerate())
