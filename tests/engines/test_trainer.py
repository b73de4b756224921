# SPDX-License-Identifier: Apache-2.0
"""The trainer: MONAI's contracts kept, with a method inside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import Lambdad
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metassl_monai.engines import PairedDataLoader, SemiSupervisedTrainer, prepare_streams
from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss


class MeanCrossEntropy(nn.Module):
    """A mean over voxels, so that two halves of a batch make the whole."""

    def forward(self, input: Tensor, target: Tensor, *others: Any) -> Tensor:
        return F.cross_entropy(input, target.squeeze(1).long())


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "cps"])
def test_is_a_monai_trainer_whose_network_is_that_of_the_method(
    name: str, make_method: Callable, make_trainer: Callable
) -> None:
    method = make_method(name)
    trainer = make_trainer(method)
    assert isinstance(trainer, SupervisedTrainer)
    assert trainer.network is method.network
    assert trainer.unwrapped_method is trainer.method is method


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "cps"])
def test_every_network_moves_and_the_total_falls(name: str, make_method: Callable, make_trainer: Callable) -> None:
    method = make_method(name, ramp=lambda step: 0.1)
    before = copy.deepcopy(method.state_dict())
    trainer = make_trainer(method, max_epochs=15)
    totals: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: totals.append(e.state.output[0]["loss"]))
    trainer.run()
    assert sum(totals[-3:]) < sum(totals[:3])
    moved = {key.split(".")[0] for key, value in method.state_dict().items() if not value.equal(before[key])}
    assert {child for child, _ in method.named_children()} - moved <= {"unlabeled_losses"}
    assert ("unlabeled_losses" in moved) == (name != "supervised")


def test_step_of_the_method_counts_iterations_over_epochs_from_zero(
    make_method: Callable, make_trainer: Callable
) -> None:
    asked: list[int] = []
    method = make_method(ramp=lambda step: asked.append(step) or 0.1)
    updated: list[int] = []
    update = method.update
    method.update = lambda step: updated.append(step) or update(step)
    make_trainer(method, max_epochs=2).run()
    assert asked == updated == list(range(6))


def test_update_follows_the_optimizer_step(make_method: Callable, make_trainer: Callable) -> None:
    method = make_method("mean_teacher")
    trainer = make_trainer(method, loader=None)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    for teacher, student in zip(method.teacher.parameters(), method.network.parameters(), strict=True):
        assert teacher.equal(student)  # the first update copies the student as the optimizer left it


def test_output_is_a_list_of_the_labeled_samples_with_what_monai_handlers_know(
    make_method: Callable, make_trainer: Callable, items: Callable
) -> None:
    method = make_method("supervised")
    expected = copy.deepcopy(method.network)
    trainer = make_trainer(method, lr=0.0)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), trainer.terminate)
    trainer.run()
    output, data = trainer.state.output, items(6, True)
    assert isinstance(output, list)
    assert len(output) == 2
    predictions = expected.train()(torch.stack([item["image"] for item in data[:2]]))
    for number, item in enumerate(output):
        assert set(item) == {"image", "label", "pred", "loss"}
        assert item["image"].equal(data[number]["image"])
        assert item["label"].equal(data[number]["label"])
        assert item["pred"].equal(predictions[number].detach())
        assert item["loss"] == pytest.approx(sum(trainer.state.losses.values()).item())
        assert not item["pred"].requires_grad
    assert [item["case"] for item in trainer.state.batch] == ["case0", "case1"]


def test_without_decollation_the_output_is_a_batch(make_method: Callable, make_trainer: Callable) -> None:
    trainer = make_trainer(make_method(), decollate=False)
    trainer.run()
    assert trainer.state.output["pred"].shape == (2, 3, 8, 8)
    assert trainer.state.output["loss"].ndim == 0


@pytest.mark.parametrize(("name", "count"), [("supervised", 1), ("mean_teacher", 2), ("cps", 4)])
def test_terms_are_in_the_state_detached_and_sum_to_the_loss(
    name: str, count: int, make_method: Callable, make_trainer: Callable
) -> None:
    trainer = make_trainer(make_method(name), max_epochs=2)
    trainer.run()
    losses = trainer.state.losses
    assert len(losses) == count
    assert set(losses) == {key for key, _ in trainer.unwrapped_method.named_losses()}
    assert not any(value.requires_grad for value in losses.values())
    assert trainer.state.output[0]["loss"] == pytest.approx(sum(value.item() for value in losses.values()))


def test_iteration_events_fire_in_the_order_of_monai(make_method: Callable, make_trainer: Callable) -> None:
    trainer = make_trainer(make_method())
    events = ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]
    fired: list[str] = []
    present: list[set[str]] = []

    def note(engine: Any, event: str) -> None:
        fired.append(event)
        # decollated by a handler of its own before ours is called
        present.append(set(engine.state.output if event != "MODEL_COMPLETED" else engine.state.output[0]))

    for event in events:
        trainer.add_event_handler(IterationEvents[event], note, event)
    trainer.run()
    assert fired == 3 * events
    assert present[0] == {"image", "label", "pred"}
    assert present[1] == present[2] == present[3] == {"image", "label", "pred", "loss"}


def test_postprocessing_sees_the_labeled_samples(make_method: Callable, make_trainer: Callable) -> None:
    trainer = make_trainer(make_method(), postprocessing=Lambdad("pred", lambda pred: pred.argmax(0, keepdim=True)))
    trainer.run()
    assert [item["pred"].shape for item in trainer.state.output] == [(1, 8, 8)] * 2


def linear_method(make_method: Callable, name: str = "cps") -> Any:
    """All means over voxels, no batch norm, no dropout: gradients of halves add up."""
    return make_method(name, (MeanCrossEntropy(), PseudoLabelLoss()), ramp=lambda step: 0.5, batch_norm=False)


def test_two_accumulated_halves_equal_one_big_step(
    make_method: Callable, make_trainer: Callable, items: Callable, assert_same_state: Callable
) -> None:
    def loader(size: int) -> PairedDataLoader:
        streams = [DataLoader(Dataset(items(8, labeled)), batch_size=size) for labeled in (True, False)]
        return PairedDataLoader(*streams, length=8 // size)

    big, halves, small = (linear_method(make_method) for _ in range(3))
    start = copy.deepcopy(big.state_dict())
    make_trainer(big, loader=loader(4), max_epochs=2).run()
    make_trainer(halves, loader=loader(2), max_epochs=2, accumulation_steps=2).run()
    make_trainer(small, loader=loader(2), max_epochs=2).run()
    assert_same_state(halves.state_dict(), big.state_dict(), tolerance=1e-6)
    for state in (start, small.state_dict()):
        assert any((value - state[name]).abs().max() > 1e-3 for name, value in big.state_dict().items())


def test_accumulated_gradients_are_flushed_at_the_end_of_each_epoch(
    make_method: Callable, make_trainer: Callable, make_loader: Callable
) -> None:
    method = linear_method(make_method)
    trainer = make_trainer(method, max_epochs=2, loader=make_loader(length=5), accumulation_steps=2)
    steps: list[int] = []
    updates: list[int] = []
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(trainer.state.iteration))
    method.update = updates.append
    trainer.run()
    assert steps == [2, 4, 5, 7, 9, 10]
    assert updates == [1, 3, 4, 6, 8, 9]


def test_accumulation_equals_that_of_monai(
    make_method: Callable, make_trainer: Callable, items: Callable, assert_same_state: Callable
) -> None:
    """With labeled images alone it is MONAI's supervised training, bit for bit."""
    method = linear_method(make_method, "supervised")
    network = copy.deepcopy(method.network)
    data = DataLoader(Dataset(items(10, True)), batch_size=2)
    SupervisedTrainer(
        device="cpu",
        max_epochs=3,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=MeanCrossEntropy(),
        accumulation_steps=2,
    ).run()
    loader = PairedDataLoader(data, DataLoader(Dataset(items(10, False)), batch_size=2), length=5)
    make_trainer(method, max_epochs=3, loader=loader, accumulation_steps=2).run()
    assert_same_state(method.network.state_dict(), network.state_dict())


@pytest.mark.parametrize("name", ["mean_teacher", "cps"])
def test_compiled_training_gives_the_weights_and_names_of_eager_training(
    name: str, make_method: Callable, make_trainer: Callable, assert_same_state: Callable
) -> None:
    torch._dynamo.reset()
    eager, compiled = make_method(name, batch_norm=False), make_method(name, batch_norm=False)
    names = list(compiled.state_dict())
    make_trainer(eager, max_epochs=2).run()
    trainer = make_trainer(compiled, max_epochs=2, compile=True, compile_kwargs={"backend": "aot_eager"})
    trainer.run()
    assert list(compiled.state_dict()) == names
    assert trainer.network is compiled.network
    assert_same_state(compiled.state_dict(), eager.state_dict(), tolerance=1e-5)


def test_compile_reaches_every_network_and_every_loss(make_method: Callable, make_trainer: Callable) -> None:
    torch._dynamo.reset()
    method = make_method("cps", (CrossEntropyDiceLoss(), PseudoLabelLoss()))
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    trainer = make_trainer(method, compile=True, compile_kwargs={"backend": backend})
    assert graphs == []
    trainer.run()
    assert len(graphs) == 3  # the two networks, and the losses of the two names, share their code
    networks = [method.network, method.second_network]
    assert all(module._compiled_call_impl is not None for module in networks)
    assert all(loss._compiled_call_impl is not None for _, loss in method.named_losses())


def test_metassl_losses_compile_without_a_graph_break(make_method: Callable, make_trainer: Callable) -> None:
    torch._dynamo.reset()
    trainer = make_trainer(make_method("cps"), compile=True, compile_kwargs={"backend": "eager", "fullgraph": True})
    trainer.run()
    assert all(value.isfinite() for value in trainer.state.losses.values())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stream", ["labeled", "unlabeled"])
def test_compiled_metassl_loss_equals_the_eager_one(stream: str, masked: bool, make_method: Callable) -> None:
    torch._dynamo.reset()
    eager = dict(make_method("cps").named_losses())[f"{stream}/network"]
    compiled = copy.deepcopy(eager)
    compiled.compile(backend="aot_eager")
    prediction, reference = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    target = [torch.randint(0, 3, (2, 1, 8, 8))] if stream == "labeled" else []
    mask = torch.rand(2, 1, 8, 8) > 0.5 if masked else None
    for _ in range(2):
        expected = eager(prediction, *target, reference, mask=mask)
        torch.testing.assert_close(compiled(prediction, *target, reference, mask=mask), expected)
    assert compiled.region_counts.equal(eager.region_counts)
    assert compiled.partition.threshold.values.allclose(eager.partition.threshold.values)


def test_without_compile_nothing_is_compiled(make_method: Callable, make_trainer: Callable) -> None:
    method = make_method()
    make_trainer(method)
    assert all(module._compiled_call_impl is None for module in method.modules())


@pytest.mark.parametrize("kind", ["metassl", "own"])
def test_mixed_precision_on_a_cpu_is_bfloat16_with_losses_in_float32(
    kind: str, make_method: Callable, make_trainer: Callable
) -> None:
    method = make_method("cps", None if kind == "metassl" else (CrossEntropyDiceLoss(), PseudoLabelLoss()))
    before = copy.deepcopy(method.state_dict())
    trainer = make_trainer(method, amp=True, max_epochs=2)
    assert not trainer.scaler.is_enabled()
    trainer.run()
    assert trainer.state.output[0]["pred"].dtype == torch.bfloat16
    assert {value.dtype for value in trainer.state.losses.values()} == {torch.float32}
    after = method.state_dict()
    assert all(value.dtype == before[name].dtype and value.isfinite().all() for name, value in after.items())
    assert all(not value.equal(before[name]) for name, value in after.items() if name.endswith("weight"))


def test_without_amp_all_is_float32(make_method: Callable, make_trainer: Callable) -> None:
    trainer = make_trainer(make_method())
    trainer.run()
    assert trainer.state.output[0]["pred"].dtype == torch.float32
    assert not trainer.scaler.is_enabled()


def test_amp_kwargs_choose_the_precision_and_with_it_loss_scaling(
    make_method: Callable, make_trainer: Callable
) -> None:
    trainer = make_trainer(make_method(), amp=True, amp_kwargs={"dtype": torch.float16})
    assert trainer.scaler.is_enabled()
    trainer.run()
    assert trainer.state.output[0]["pred"].dtype == torch.float16
    assert not make_trainer(make_method(), amp_kwargs={"dtype": torch.float16}).scaler.is_enabled()


def test_scaler_is_one_object_that_keeps_its_state_over_two_runs(make_method: Callable, make_trainer: Callable) -> None:
    trainer = make_trainer(make_method(), amp=True, amp_kwargs={"dtype": torch.float16})
    scaler = trainer.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 128.0})
    trainer.run()
    assert scaler.state_dict()["_growth_tracker"] == 3
    trainer.state.max_epochs = 2
    trainer.run()
    assert trainer.state.iteration == 6
    assert trainer.scaler is scaler
    assert scaler.state_dict()["_growth_tracker"] == 6
    assert scaler.get_scale() == 128.0


def test_inferer_other_than_the_simple_one_is_refused(make_method: Callable, make_trainer: Callable) -> None:
    make_trainer(make_method(), inferer=SimpleInferer())
    with pytest.raises(ValueError, match="inferer=SlidingWindowInferer cannot be used"):
        make_trainer(make_method(), inferer=SlidingWindowInferer(roi_size=(8, 8)))


def test_iteration_update_is_honored(make_method: Callable, make_trainer: Callable) -> None:
    batches: list[Any] = []

    def update(engine: Any, batch: Any) -> dict[str, Tensor]:
        batches.append(batch)
        return {"loss": torch.tensor(42.0)}

    method = make_method()
    before = copy.deepcopy(method.state_dict())
    trainer = make_trainer(method, iteration_update=update, decollate=False)
    trainer.run()
    assert [set(batch) for batch in batches] == [{"labeled", "unlabeled"}] * 3
    assert trainer.state.output == {"loss": torch.tensor(42.0)}
    assert all(value.equal(before[name]) for name, value in method.state_dict().items())


def test_prepare_batch_and_to_kwargs_are_honored(make_method: Callable, make_trainer: Callable) -> None:
    seen: list[dict[str, Any]] = []

    def prepare(batch: Any, device: Any, non_blocking: bool, **kwargs: Any) -> Any:
        seen.append({"device": device, "non_blocking": non_blocking, **kwargs})
        return prepare_streams(batch, device, non_blocking, **kwargs)

    trainer = make_trainer(
        make_method().double(), prepare_batch=prepare, non_blocking=True, to_kwargs={"dtype": torch.float64}
    )
    trainer.run()
    assert seen == [{"device": torch.device("cpu"), "non_blocking": True, "dtype": torch.float64}] * 3
    assert trainer.state.output[0]["pred"].dtype == torch.float64


def test_streams_are_moved_as_plain_tensors_and_the_rest_is_left() -> None:
    image = MetaTensor(torch.ones(1, 1, 2, 2), meta={"filename_or_obj": "a.nii"})
    batch = {
        "labeled": {"image": image, "label": torch.zeros(1, 1, 2, 2), "case": ["a"]},
        "unlabeled": {"image": image},
    }
    moved = prepare_streams(batch, torch.device("cpu"), dtype=torch.float64)
    for stream in ("labeled", "unlabeled"):
        assert type(moved[stream]["image"]) is Tensor
        assert moved[stream]["image"].dtype == torch.float64
    assert moved["labeled"]["case"] == ["a"]
    assert type(batch["labeled"]["image"]) is MetaTensor


def test_optim_set_to_none_is_honored(make_method: Callable, make_trainer: Callable) -> None:
    for value in (True, False):
        trainer = make_trainer(make_method(), optim_set_to_none=value)
        asked: list[bool] = []
        zero_grad = trainer.optimizer.zero_grad
        trainer.optimizer.zero_grad = lambda set_to_none, asked=asked, zero_grad=zero_grad: (
            asked.append(set_to_none),
            zero_grad(set_to_none=set_to_none),
        )
        trainer.run()
        assert asked == [value] * 3


def test_metatensor_batches_train_like_plain_ones(
    make_method: Callable, make_trainer: Callable, items: Callable, assert_same_state: Callable
) -> None:
    def loader(wrap: Callable) -> PairedDataLoader:
        streams = []
        for labeled in (True, False):
            data = [{k: wrap(v) if isinstance(v, Tensor) else v for k, v in item.items()} for item in items(4, labeled)]
            streams.append(DataLoader(Dataset(data), batch_size=2))
        return PairedDataLoader(*streams, length=2)

    plain, meta = make_method(), make_method()
    make_trainer(plain, loader=loader(lambda x: x)).run()
    make_trainer(meta, loader=loader(MetaTensor)).run()
    assert_same_state(meta.state_dict(), plain.state_dict())


@pytest.mark.parametrize("name", ["mean_teacher", "cps"])
def test_distributed_wrapper_on_one_process_changes_nothing(
    name: str, make_method: Callable, make_trainer: Callable, assert_same_state: Callable, tmp_path: Path
) -> None:
    alone, wrapped = make_method(name), make_method(name)
    make_trainer(alone, max_epochs=2).run()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(wrapped)
        trainer: SemiSupervisedTrainer = make_trainer(parallel, max_epochs=2)
        assert trainer.unwrapped_method is wrapped
        assert trainer.network is wrapped.network
        trainer.run()
    finally:
        dist.destroy_process_group()
    assert_same_state(wrapped.state_dict(), alone.state_dict(), tolerance=1e-6)


def test_method_is_put_into_training_mode_for_every_step(make_method: Callable, make_trainer: Callable) -> None:
    """Validation leaves the network in evaluation mode, where dropout, batch norm and thresholds stand still."""
    method = make_method("cps")
    modes: list[bool] = []
    method.register_forward_pre_hook(lambda module, _: modes.append(all(part.training for part in module.modules())))
    trainer = make_trainer(method, max_epochs=2)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: method.eval())
    trainer.run()
    assert modes == [True] * 6
