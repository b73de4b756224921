# SPDX-License-Identifier: Apache-2.0
"""Each method's total against a computation in plain loops, written from the papers' formulas.

The slow side takes no more than logits of the networks: it mixes the images, cleans the pseudo-labels, finds regions,
thresholds and weights by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain import softmax, top, voxels
from torch import Tensor, nn

from metassl_monai.methods.perturbations import PERTURBATIONS

Voxel = list[float]
Logits = list[Voxel]
Thresholds = dict[str, Voxel]
Batch = dict[str, dict[str, Tensor]]

PHI_UNLABELED = [math.exp(-((rank * 0.6) ** 3)) for rank in range(4)]
PHI_LABELED = [math.exp(-((rank * 0.3) ** 3)) for rank in range(4)]
WEIGHT = {
    "unlabeled": dict(zip(("UC", "US", "DC", "DS"), PHI_UNLABELED, strict=True)),
    "labeled": dict(zip(("UC", "US", "DS", "DC"), PHI_LABELED, strict=True)),
}
SURE = 0.4


def integers(label: Tensor) -> list[int]:
    return [int(value) for value in label.flatten()]


def tops(logits: Logits) -> list[int]:
    return [top(voxel) for voxel in logits]


def move_thresholds(thresholds: Voxel, reference: Logits, labels: list[int], keep: float = 0.99) -> None:
    for c in range(len(thresholds)):
        confidences = [softmax(voxel)[c] for voxel, label in zip(reference, labels, strict=True) if label == c]
        if confidences:
            thresholds[c] = keep * thresholds[c] + (1 - keep) * sum(confidences) / len(confidences)


def partition(reference: Logits, labels: list[int], others: list[int], thresholds: Voxel) -> list[str]:
    regions = []
    for voxel, label, other in zip(reference, labels, others, strict=True):
        confident = softmax(voxel)[label] > thresholds[label]
        regions.append(("U" if label == other else "D") + ("C" if confident else "S"))
    return regions


def metassl_unlabeled(
    prediction: Logits, reference: Logits, labels: list[int], thresholds: Voxel, seen: Counter
) -> float:
    move_thresholds(thresholds, reference, labels)
    regions = partition(reference, labels, tops(prediction), thresholds)
    seen.update(f"unlabeled {region}" for region in regions)
    weights = [WEIGHT["unlabeled"][region] for region in regions]
    total = 0.0
    for weight, p, label in zip(weights, prediction, labels, strict=True):
        total += weight * -math.log(softmax(p)[label])
    return total / sum(weights)


def metassl_labeled(
    prediction: Logits, target: list[int], reference: Logits, labels: list[int], thresholds: Voxel, seen: Counter
) -> float:
    move_thresholds(thresholds, reference, labels)
    regions = partition(reference, labels, target, thresholds)
    seen.update(f"labeled {region}" for region in regions)
    weights = [WEIGHT["labeled"][region] for region in regions]
    cross_entropy = 0.0
    for weight, p, y in zip(weights, prediction, target, strict=True):
        cross_entropy += weight * -math.log(softmax(p)[y])
    dice = 0.0
    for c in range(len(thresholds)):
        upper = lower = 1e-5
        for weight, p, y in zip(weights, prediction, target, strict=True):
            upper += weight * 2 * (y == c) * softmax(p)[c]
            lower += weight * ((y == c) + softmax(p)[c])
        dice += upper / lower
    return cross_entropy / sum(weights) + 1 - dice / len(thresholds)


def half_cross_entropy_half_dice(prediction: Logits, target: list[int]) -> float:
    cross_entropy = sum(-math.log(softmax(p)[y]) for p, y in zip(prediction, target, strict=True)) / len(target)
    dice = 0.0
    for c in range(3):
        upper = lower = 1e-5
        for p, y in zip(prediction, target, strict=True):
            upper += 2 * (y == c) * softmax(p)[c]
            lower += (y == c) + softmax(p)[c] ** 2
        dice += upper / lower
    return 0.5 * (cross_entropy + 1 - dice / 3)


def pseudo_label(prediction: Logits, reference: Logits, labels: list[int]) -> float:
    return sum(-math.log(softmax(p)[label]) for p, label in zip(prediction, labels, strict=True)) / len(prediction)


def sure_pseudo_label(prediction: Logits, reference: Logits, labels: list[int]) -> float:
    """Voxels that are not sure count as 0, and count."""
    total, sure = 0.0, 0
    for p, q, label in zip(prediction, reference, labels, strict=True):
        if softmax(q)[label] >= SURE:
            total += -math.log(softmax(p)[label])
            sure += 1
    assert 0 < sure < len(prediction)
    return total / len(prediction)


def softmax_mse(prediction: Logits, reference: Logits, labels: list[int]) -> float:
    total = 0.0
    for p, q in zip(prediction, reference, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(softmax(p), softmax(q), strict=True)) / len(p)
    return total / len(prediction)


def half_divergence(prediction: Logits, reference: Logits, labels: list[int]) -> float:
    total = 0.0
    for p, q in zip(prediction, reference, strict=True):
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(softmax(p), softmax(q), strict=True))
    return 0.5 * total / len(prediction)


def sharpened_mse(prediction: Logits, reference: Logits, labels: list[int]) -> float:
    """Sharpened at a temperature of 0.1 and renormalized."""
    total = 0.0
    for p, q in zip(prediction, reference, strict=True):
        powers = [value**10 for value in softmax(q)]
        total += sum((a - b / sum(powers)) ** 2 for a, b in zip(softmax(p), powers, strict=True))
    return total / len(prediction)


OWN_UNLABELED = {
    "ALHVR": sharpened_mse,
    "MeanTeacher": softmax_mse,
    "CrossPseudoSupervision": pseudo_label,
    "DualNet": pseudo_label,
    "MutualConsistency": softmax_mse,
    "FixMatch": sure_pseudo_label,
    "RDrop": half_divergence,
    "CrossConsistencyTraining": softmax_mse,
    "BidirectionalCopyPaste": lambda prediction, reference, labels: half_cross_entropy_half_dice(prediction, labels),
}


class Losses:
    """The two losses of a method, MetaSSL's or its own, with the thresholds of each pair name."""

    def __init__(self, method: nn.Module, kind: str, ramp: Callable[[int], float]) -> None:
        self.own_unlabeled = OWN_UNLABELED.get(type(method).__name__)
        self.kind = kind
        self.ramp = ramp
        self.step = 0
        self.seen: Counter = Counter()
        self.thresholds: Thresholds = {name: [0.5] * 3 for name, _ in method.named_losses()}

    def labeled(
        self, name: str, prediction: Logits, target: list[int], reference: Logits, labels: list[int] | None = None
    ) -> float:
        labels = tops(reference) if labels is None else labels
        if self.kind == "own":
            return half_cross_entropy_half_dice(prediction, target)
        return metassl_labeled(prediction, target, reference, labels, self.thresholds[f"labeled/{name}"], self.seen)

    def unlabeled(self, name: str, prediction: Logits, reference: Logits, labels: list[int] | None = None) -> float:
        labels = tops(reference) if labels is None else labels
        if self.kind == "own":
            return self.ramp(self.step) * self.own_unlabeled(prediction, reference, labels)
        loss = metassl_unlabeled(prediction, reference, labels, self.thresholds[f"unlabeled/{name}"], self.seen)
        return self.ramp(self.step) * loss


def streams(network: nn.Module, batch: Batch, key: str = "image") -> tuple[Logits, Logits]:
    """Logits of labeled and unlabeled images; networks without batch norm see each image alone."""
    return voxels(network(batch["labeled"][key])), voxels(network(batch["unlabeled"][key]))


def slow_supervised(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    prediction = voxels(method.network(batch["labeled"]["image"]))  # its own reference
    return losses.labeled("network", prediction, target, prediction)


def slow_mean_teacher(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    student, teacher = streams(method.network, batch), streams(method.teacher, batch)
    return losses.labeled("network", student[0], target, teacher[0]) + losses.unlabeled(
        "network", student[1], teacher[1]
    )


def slow_cross_pseudo_supervision(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    first, second = streams(method.network, batch), streams(method.second_network, batch)
    return (
        losses.labeled("network", first[0], target, second[0])
        + losses.unlabeled("network", first[1], second[1])
        + losses.labeled("second_network", second[0], target, first[0])
        + losses.unlabeled("second_network", second[1], first[1])
    )


def slow_dual_net(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    """Unlabeled voxels count where the reference's entropy is among the lowest four fifths."""
    views = {name: streams(getattr(method, name), batch) for name in ("network", "second_network")}
    total = 0.0
    for name, other in (("network", "second_network"), ("second_network", "network")):
        total += losses.labeled(name, views[name][0], target, views[other][0])
        entropies = [-sum(p * math.log(p) for p in softmax(voxel)) for voxel in views[other][1]]
        limit = sorted(entropies)[round(0.8 * len(entropies)) - 1]
        sure = [voxel for voxel, entropy in enumerate(entropies) if entropy <= limit]
        prediction, reference = ([views[each][1][voxel] for voxel in sure] for each in (name, other))
        total += losses.unlabeled(name, prediction, reference)
    return total


def slow_mutual_consistency(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    """References are sharpened: ``p^2``, renormalized, at a temperature of one half."""
    features = {stream: method.network.encoder(data["image"]) for stream, data in batch.items()}
    views, references = {}, {}
    for name, decoder in (("network", method.network.decoder), ("second_decoder", method.second_decoder)):
        views[name] = [voxels(decoder(features[stream])) for stream in ("labeled", "unlabeled")]
        squares = [[[p**2 for p in softmax(voxel)] for voxel in stream] for stream in views[name]]
        references[name] = [[[math.log(q / sum(voxel)) for q in voxel] for voxel in stream] for stream in squares]
    return sum(
        losses.labeled(name, views[name][0], target, references[other][0])
        + losses.unlabeled(name, views[name][1], references[other][1])
        for name, other in (("network", "second_decoder"), ("second_decoder", "network"))
    )


def slow_fixmatch(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    weak, strong = streams(method.network, batch), streams(method.network, batch, "image_strong")
    if method.labeled_views == "weak":
        supervised = losses.labeled("weak", weak[0], target, weak[0])
    else:
        supervised = 0.5 * (
            losses.labeled("weak", weak[0], target, strong[0]) + losses.labeled("strong", strong[0], target, weak[0])
        )
    return supervised + losses.unlabeled("strong", strong[1], weak[1])


def slow_r_drop(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    """The passes differ by dropout, which is drawn as in the step that was played before."""
    torch.manual_seed(losses.step)
    images = [image for stream in ("labeled", "unlabeled") for image in batch[stream]["image"]]
    logits = method.network(torch.stack(images + images))
    number, labeled = len(images), len(batch["labeled"]["image"])
    first = voxels(logits[:labeled]), voxels(logits[labeled:number])
    second = voxels(logits[number : number + labeled]), voxels(logits[number + labeled :])
    assert first != second
    supervised = losses.labeled("first", first[0], target, second[0])
    supervised += losses.labeled("second", second[0], target, first[0])
    return (
        0.5 * supervised
        + losses.unlabeled("first", first[1], second[1])
        + losses.unlabeled("second", second[1], first[1])
    )


FIXED_PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda x: 1.2 * x,
    "dropout": lambda x: x * (torch.arange(x.shape[-1]) % 3 > 0),
    "most_active": lambda x: x.clamp(max=0.3),
}


def slow_cross_consistency_training(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    features = {stream: method.network.encoder(data["image"]) for stream, data in batch.items()}
    main = [voxels(method.network.decoder(features[stream])) for stream in ("labeled", "unlabeled")]
    supervised = consistency = 0.0
    mean = [[0.0] * 3 for _ in main[0]]
    for name, perturb in FIXED_PERTURBATIONS.items():
        decoder = method.decoders[name]
        labeled, unlabeled = (
            voxels(decoder([perturb(level) for level in features[stream]])) for stream in ("labeled", "unlabeled")
        )
        supervised += losses.labeled(name, labeled, target, main[0])
        consistency += losses.unlabeled(name, unlabeled, main[1])
        for voxel, logits in zip(mean, labeled, strict=True):
            for c in range(3):
                voxel[c] += softmax(logits)[c] / 3
    supervised += losses.labeled("main", main[0], target, [[math.log(p) for p in voxel] for voxel in mean])
    return supervised / 4 + consistency / 3


def slow_alhvr(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    """Both networks learn from the surer one where the perturbed predictions of both are unsure."""
    torch.manual_seed(losses.step)
    images, names = torch.cat([data["image"] for data in batch.values()]), ("network", "second_network")
    plain, perturbed = {}, {}
    for name in names:
        network = getattr(method, name)
        features = network.encoder(images)
        perturb = FIXED_PERTURBATIONS["most_active" if torch.rand(()) > 0.5 else "noise"]
        plain[name] = voxels(network.decoder(features))
        perturbed[name] = voxels(network.decoder([perturb(level) for level in features]))[len(target) :]
    sure = {name: [max(softmax(voxel)) for voxel in perturbed[name]] for name in names}
    average = sorted((a + b) / 2 for a, b in zip(*sure.values(), strict=True))
    lowest = average[: round(0.8 * len(average))]
    unsure = [x for x in range(len(average)) if max(sure[name][x] for name in names) < sum(lowest) / len(lowest)]
    candidates = [[plain[name][len(target) + x] for name in names] for x in unsure]
    teacher = [max(voxel, key=lambda logits: max(softmax(logits))) for voxel in candidates]
    total = 0.0
    for name, other in (names, names[::-1]):
        total += losses.labeled(name, plain[name][: len(target)], target, plain[other][: len(target)])
        total += losses.unlabeled(name, [perturbed[name][x] for x in unsure], teacher)
    return total


def largest_component(label: list[list[int]], c: int) -> set[tuple[int, int]]:
    """Pixels of the largest region of class ``c``, by flood fill over all eight neighbors; the first of equal ones."""
    height, width = len(label), len(label[0])
    left = {(y, x) for y in range(height) for x in range(width) if label[y][x] == c}
    best: set[tuple[int, int]] = set()
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        component, border = {start}, [start]
        while border:
            y, x = border.pop()
            for neighbor in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if neighbor in left:
                    left.remove(neighbor)
                    component.add(neighbor)
                    border.append(neighbor)
        if len(component) > len(best):
            best = component
    return best


def cleaned(labels: list[int], height: int, width: int) -> list[int]:
    """The label of one image with the largest component of each foreground class, and background elsewhere."""
    rows = [labels[y * width : (y + 1) * width] for y in range(height)]
    result = [0] * len(labels)
    for c in (1, 2):
        for y, x in largest_component(rows, c):
            result[y * width + x] = c
    return result


def slow_bidirectional_copy_paste(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    """Two mixtures, each judged on its two parts alone; the mask is the only thing that the method tells."""
    labeled, unlabeled = batch["labeled"]["image"], batch["unlabeled"]["image"]
    height, width = labeled.shape[2:]
    size = height * width
    mask = [bool(value) for value in method.paste.mask.flatten()]
    teacher_labeled, teacher_unlabeled = streams(method.teacher, batch)
    guess, total, removed = tops(teacher_labeled), 0.0, 0
    parts: dict[str, dict[str, list[Any]]] = {}
    for i in range(len(unlabeled)):
        partner = i % len(labeled)
        half = "inward" if i < (len(unlabeled) + 1) // 2 else "outward"
        mixed = unlabeled[i : i + 1].clone()
        for voxel in range(size):
            if mask[i * size + voxel]:
                y, x = divmod(voxel, width)
                mixed[0, 0, y, x] = labeled[partner, 0, y, x]
        prediction = voxels(method.network(mixed))
        raw = tops(teacher_unlabeled[i * size : (i + 1) * size])
        pseudo = cleaned(raw, height, width)
        removed += sum(old != new for old, new in zip(raw, pseudo, strict=True))
        for voxel in range(size):
            from_labeled = mask[i * size + voxel]
            there = partner * size + voxel
            part = parts.setdefault(half, {}).setdefault("labeled" if from_labeled else "unlabeled", [])
            if from_labeled:
                part.append((prediction[voxel], target[there], teacher_labeled[there], guess[there]))
            else:
                part.append((prediction[voxel], None, teacher_unlabeled[i * size + voxel], pseudo[voxel]))
    assert removed > 0
    for half in ("inward", "outward"):
        prediction, annotation, reference, label = (
            list(column) for column in zip(*parts[half]["labeled"], strict=True)
        )
        total += losses.labeled(half, prediction, annotation, reference, label)
        prediction, _, reference, label = (list(column) for column in zip(*parts[half]["unlabeled"], strict=True))
        total += 0.5 * losses.unlabeled(half, prediction, reference, label)
    return total


def slow_copy_paste_pretraining(method: Any, batch: Batch, target: list[int], losses: Losses) -> float:
    images = batch["labeled"]["image"]
    height, width = images.shape[2:]
    size = height * width
    mask = [bool(value) for value in method.paste.mask.flatten()]
    parts: dict[str, list[Any]] = {"own": [], "next": []}
    for i in range(len(images)):
        following = (i + 1) % len(images)
        mixed = images[i : i + 1].clone()
        for voxel in range(size):
            if mask[i * size + voxel]:
                y, x = divmod(voxel, width)
                mixed[0, 0, y, x] = images[following, 0, y, x]
        prediction = voxels(method.network(mixed))
        for voxel in range(size):
            name, source = ("next", following) if mask[i * size + voxel] else ("own", i)
            parts[name].append((prediction[voxel], target[source * size + voxel]))
    total = 0.0
    for name, part in parts.items():
        prediction, annotation = (list(column) for column in zip(*part, strict=True))
        total += losses.labeled(name, prediction, annotation, prediction)
    return total


SLOW = {
    "ALHVR": slow_alhvr,
    "Supervised": slow_supervised,
    "MeanTeacher": slow_mean_teacher,
    "CrossPseudoSupervision": slow_cross_pseudo_supervision,
    "DualNet": slow_dual_net,
    "MutualConsistency": slow_mutual_consistency,
    "FixMatch": slow_fixmatch,
    "RDrop": slow_r_drop,
    "CrossConsistencyTraining": slow_cross_consistency_training,
    "BidirectionalCopyPaste": slow_bidirectional_copy_paste,
    "CopyPastePretraining": slow_copy_paste_pretraining,
}


def sharpen(network: nn.Module) -> None:
    """Make logits large enough that confidences fall on both sides of the thresholds."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("head.weight"):
                parameter.mul_(2.5)


def test_total_of_three_steps_equals_the_slow_computation(
    row: Any,
    losses: str,
    make_method: Callable,
    batch: Batch,
    shake: Callable,
    play: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, perturb in FIXED_PERTURBATIONS.items():  # each has a test of its own
        monkeypatch.setitem(PERTURBATIONS, name, perturb)

    def ramp(step: int) -> float:
        return 0.3 + step

    method = make_method(row, losses, ramp=ramp, batch_norm=False, **row.without_noise).double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    target = integers(batch["labeled"]["label"])
    for name in row.networks:
        if name in row.teachers:
            shake(getattr(method, name), 0.2)  # a teacher of its own, else it equals its student
        sharpen(getattr(method, name))
    slow = Losses(method, losses, ramp)
    for step in range(3):
        slow.step = step
        terms, _ = play(method, batch, step, seed=step)
        with torch.no_grad():
            expected = SLOW[row.method.__name__](method, batch, target, slow)
        assert sum(term.item() for term in terms.values()) == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            for name in ("network", *row.further_networks):
                getattr(method, name).encoder.first.weight.add_(0.1)
    if losses == "metassl":
        used = [stream for stream in ("labeled", "unlabeled") if row.method.names[stream]]
        assert set(slow.seen) == {f"{stream} {region}" for stream in used for region in ("UC", "US", "DC", "DS")}
