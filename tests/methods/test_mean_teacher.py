# SPDX-License-Identifier: Apache-2.0
"""What is Mean Teacher's own: the noise on the teacher's images, and a teacher that starts fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metassl_monai.methods
from metassl_monai.losses import CrossEntropyDiceLoss, MonitoredLoss, SoftmaxMSELoss, metassl_losses
from metassl_monai.methods import MeanTeacher


@pytest.fixture
def seen_images() -> Callable[..., tuple[Tensor, Tensor]]:
    """Images that student and teacher see in one step."""

    def see(images: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
        method = MeanTeacher(nn.Conv2d(1, 2, 1), *metassl_losses(2), ramp=lambda step: 1.0, **arguments)
        seen: dict[str, Tensor] = {}
        method.network.register_forward_hook(lambda module, inputs, output: seen.update(student=inputs[0]))
        method.teacher.register_forward_hook(lambda module, inputs, output: seen.update(teacher=inputs[0]))
        label = torch.zeros_like(images[:1])
        method({"labeled": {"image": images[:1], "label": label}, "unlabeled": {"image": images[1:]}}, 0)
        return seen["student"], seen["teacher"]

    return see


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_teacher_sees_the_images_with_clamped_gaussian_noise(seen_images: Callable, noise: float) -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 1, 64, 64)
    student, teacher = seen_images(images, noise=noise)
    assert student.equal(images)
    assert float(teacher.abs().max()) == pytest.approx(2 * noise)
    # a Gaussian clamped at two standard deviations has 0.9594 of its deviation
    assert float(teacher.std()) == pytest.approx(0.9594 * noise, rel=0.02)
    assert abs(float(teacher.mean())) < 0.02 * noise + 0.01 * noise
    assert teacher[0].ne(teacher[1]).any()


def test_default_noise_is_that_of_the_papers(seen_images: Callable) -> None:
    torch.manual_seed(0)
    _, teacher = seen_images(torch.zeros(4, 1, 64, 64))
    assert float(teacher.abs().max()) == pytest.approx(0.2)


def test_without_noise_teacher_and_student_see_the_same(seen_images: Callable) -> None:
    student, teacher = seen_images(torch.randn(3, 1, 8, 8), noise=0.0)
    assert teacher.equal(student)


FAMILY = ["MeanTeacher", "UncertaintyAwareMeanTeacher", "AmbiguityConsensusMeanTeacher", "InterpolationConsistency"]
FURTHER = {name: {"schedule": lambda step: 1.0} for name in FAMILY[1:3]}


@pytest.mark.parametrize("name", FAMILY)
def test_teacher_sees_labeled_images_only_where_a_labeled_loss_looks_at_its_reference(
    name: str, make_network: Callable, make_batch: Callable, images_seen: Callable
) -> None:
    own = CrossEntropyDiceLoss(), SoftmaxMSELoss()
    monitored = [MonitoredLoss(loss, look) for loss, look in zip(own, metassl_losses(3), strict=True)]
    kind = getattr(metassl_monai.methods, name)
    for losses, first, last in ((own, [3], []), (metassl_losses(3), [5], []), (monitored, [3], [2])):
        method = kind(make_network(), *losses, lambda step: 1.0, **FURTHER.get(name, {}))
        seen = images_seen(method, ("teacher",))["teacher"]
        method(make_batch(2, 3), 0)
        selection = 8 if name.startswith("Uncertainty") else 0
        assert [len(images) for images in seen] == [*first, *last, *[3] * selection]


@pytest.mark.parametrize("name", FAMILY)
def test_a_loss_that_looks_on_changes_nothing(
    name: str, make_network: Callable, make_batch: Callable, play: Callable
) -> None:
    """Noise and dropout go on as if the teacher had not seen the labeled images."""
    networks = [make_network(dropout=0.3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    own, totals = (CrossEntropyDiceLoss(), SoftmaxMSELoss()), []
    looked = [MonitoredLoss(loss, look) for loss, look in zip(own, metassl_losses(3), strict=True)]
    for network, losses in zip(networks, (own, looked), strict=True):
        method = getattr(metassl_monai.methods, name)(network, *losses, lambda step: 1.0, **FURTHER.get(name, {}))
        play(method, make_batch(), 0)
        method.update(0)
        totals.append(sum(method(make_batch(), 1)[0].values()))  # random numbers go on from the first step
        method.update(1)
    assert totals[0].equal(totals[1])


def test_first_update_copies_the_student_whatever_the_teacher_was(shake: Callable) -> None:
    method = MeanTeacher(nn.Conv2d(1, 2, 1), *metassl_losses(2), ramp=lambda step: 1.0)
    shake(method.teacher)
    method.update(0)
    assert all(
        new.equal(old) for new, old in zip(method.teacher.parameters(), method.network.parameters(), strict=True)
    )
