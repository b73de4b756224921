# SPDX-License-Identifier: Apache-2.0
"""The paired loader: two streams, each with a life of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from metassl_monai.engines import PairedDataLoader

LABELED, UNLABELED = list(range(4)), list(range(100, 110))


def paired(length: int, shuffle: bool = False, **arguments: Any) -> PairedDataLoader:
    return PairedDataLoader(
        DataLoader(LABELED, batch_size=2, shuffle=shuffle, **arguments),
        DataLoader(UNLABELED, batch_size=3, shuffle=shuffle, drop_last=True, **arguments),
        length,
    )


def stream(loader: PairedDataLoader, name: str) -> list[list[int]]:
    return [step[name].tolist() for step in loader]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_epoch_has_the_given_length_whichever_stream_is_longer(length: int) -> None:
    loader = paired(length)
    assert len(loader) == length
    steps = list(loader)
    assert len(steps) == length
    assert all(list(step) == ["labeled", "unlabeled"] for step in steps)
    assert {len(step["labeled"]) for step in steps} == {2}
    assert {len(step["unlabeled"]) for step in steps} == {3}


def test_stream_that_runs_out_starts_again() -> None:
    loader = paired(5)
    assert stream(loader, "labeled") == [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]
    assert stream(loader, "unlabeled")[:4] == [[100, 101, 102], [103, 104, 105], [106, 107, 108], [100, 101, 102]]


def test_stream_that_runs_out_is_shuffled_anew() -> None:
    torch.manual_seed(0)
    batches = stream(paired(40, shuffle=True), "labeled")
    passes = [tuple(itertools.chain(*batches[i : i + 2])) for i in range(0, 40, 2)]
    assert all(sorted(order) == LABELED for order in passes)
    assert len(set(passes)) > 5


def test_unlabeled_stream_may_be_the_shorter_one() -> None:
    loader = PairedDataLoader(DataLoader(UNLABELED, batch_size=2), DataLoader([7], batch_size=1), length=5)
    assert stream(loader, "labeled") == [[100, 101], [102, 103], [104, 105], [106, 107], [108, 109]]
    assert stream(loader, "unlabeled") == [[7]] * 5


def test_every_epoch_starts_both_streams_afresh() -> None:
    loader = paired(1)
    for _ in range(3):
        [step] = list(loader)
        assert step["labeled"].tolist() == [0, 1]
        assert step["unlabeled"].tolist() == [100, 101, 102]


def test_every_epoch_is_shuffled_by_the_random_state_of_its_start() -> None:
    loader = paired(6, shuffle=True)
    orders = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        orders.append([(step["labeled"].tolist(), step["unlabeled"].tolist()) for step in loader])
    assert orders[0] == orders[2] != orders[1]


def test_two_iterators_do_not_share_their_place() -> None:
    loader = paired(3)
    first, second = iter(loader), iter(loader)
    assert next(first)["labeled"].tolist() == [0, 1]
    assert next(first)["labeled"].tolist() == [2, 3]
    assert next(second)["labeled"].tolist() == [0, 1]


def test_last_batch_may_be_smaller_where_the_loader_keeps_it() -> None:
    loader = PairedDataLoader(DataLoader([0, 1, 2], batch_size=2), DataLoader([3], batch_size=1), length=3)
    assert stream(loader, "labeled") == [[0, 1], [2], [0, 1]]


def test_workers_yield_the_same_batches() -> None:
    assert stream(paired(3, num_workers=1), "unlabeled") == stream(paired(3), "unlabeled")


@pytest.mark.parametrize("name", ["labeled", "unlabeled"])
def test_stream_without_a_batch_is_refused_with_its_numbers(name: str) -> None:
    loaders = {"labeled": DataLoader(LABELED, batch_size=2), "unlabeled": DataLoader(UNLABELED, batch_size=2)}
    loaders[name] = DataLoader([1, 2, 3], batch_size=4, drop_last=True)
    message = (
        f"the {name} stream yields no batch: it has 3 samples, fewer than its batch size 4. Lower {name}_batch_size"
    )
    with pytest.raises(ValueError, match=message):
        PairedDataLoader(**loaders, length=2)


def test_an_unlabeled_stream_may_be_left_out() -> None:
    steps = list(PairedDataLoader(DataLoader(LABELED, batch_size=2), None, length=3))
    assert [list(step) for step in steps] == [["labeled"]] * 3
    assert [step["labeled"].tolist() for step in steps] == [[0, 1], [2, 3], [0, 1]]


def test_an_empty_data_set_is_refused_whatever_its_sampler_promises() -> None:
    sampler = torch.utils.data.RandomSampler([], num_samples=4)
    empty = DataLoader([], batch_size=2, sampler=sampler)
    with pytest.raises(ValueError, match="the unlabeled stream yields no batch: it has 0 samples"):
        PairedDataLoader(DataLoader(LABELED, batch_size=2), empty, length=2)


class RecordingSampler(DistributedSampler):
    """Notes each ``set_epoch`` and each pass."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.events: list[Any] = []

    def set_epoch(self, epoch: int) -> None:
        self.events.append(epoch)
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        self.events.append("pass")
        return super().__iter__()


def distributed(rank: int = 0, length: int = 4) -> tuple[PairedDataLoader, list[RecordingSampler]]:
    samplers = [RecordingSampler(data, num_replicas=2, rank=rank, seed=0) for data in (LABELED, UNLABELED)]
    loaders = [
        DataLoader(data, batch_size=1, sampler=sampler)
        for data, sampler in zip((LABELED, UNLABELED), samplers, strict=True)
    ]
    return PairedDataLoader(*loaders, length=length), samplers


def test_distributed_samplers_get_an_epoch_of_their_own_for_each_epoch_and_pass() -> None:
    loader, samplers = distributed(length=6)  # 3 passes over the labeled stream, 2 over the unlabeled one
    for epoch in range(1, 5):
        loader.set_epoch(epoch)
        list(loader)
    for sampler, passes in zip(samplers, (3, 2), strict=True):
        epochs = sampler.events[::2]
        assert sampler.events[1::2] == ["pass"] * len(epochs)
        assert len(epochs) == len(set(epochs)) == 4 * passes


def test_distributed_epoch_is_a_function_of_the_number_set_alone() -> None:
    loader, samplers = distributed()
    loader.set_epoch(3)
    list(loader)
    first = list(samplers[0].events)
    list(loader)
    assert samplers[0].events == first * 2


def test_distributed_ranks_share_each_pass_without_overlap_in_a_new_order() -> None:
    loaders = [distributed(rank, length=2)[0] for rank in (0, 1)]
    orders = set()
    for epoch in range(6):
        seen = []
        for loader in loaders:
            loader.set_epoch(epoch)
            seen.append([step["labeled"].item() for step in loader])
        assert sorted(seen[0] + seen[1]) == LABELED
        orders.add(tuple(map(tuple, seen)))
    assert len(orders) > 1
