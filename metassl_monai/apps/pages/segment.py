# SPDX-License-Identifier: Apache-2.0
"""The validation of a training's own config at work in this process, on cases of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from metassl_monai.bundle.errors import user_mistake
from metassl_monai.bundle.preflight import check_network
from metassl_monai.data import load_datalist, network_orientation
from metassl_monai.data.pictures import is_picture
from metassl_monai.handlers import CaseTable

from .run import TrainedRun

__all__ = ["cases_of", "reason_of", "score_validation", "segment"]

Use = Callable[[Mapping[str, Any], Mapping[str, Any]], object]
"""Called with the item of the datalist and with what the postprocessing leaves, ``pred`` and ``label``."""


def cases_of(run: TrainedRun, key: str) -> list[dict[str, Any]]:
    """Return the items of a list of the training's datalist, see :func:`metassl_monai.data.load_datalist`."""
    parser = run.parser()
    datalist, dataset_dir = (parser.get_parsed_content(name) for name in ("datalist", "dataset_dir"))
    return load_datalist(datalist, key, dataset_dir)


def score_validation(run: TrainedRun) -> None:
    """Write the table of the network that the training kept into ``evaluation_validation``, as ``evaluating`` does."""
    items = cases_of(run, "validation")
    table = CaseTable(run.table_folder, run.labels, has_spacing=not is_picture(items[0]["label"]))
    evaluator = _evaluator(run, run.parser(), items)
    table.attach(evaluator)
    evaluator.run()


def segment(run: TrainedRun, items: Sequence[Mapping[str, Any]], use: Use, labeled: bool) -> None:
    """Segment cases with the network that the training kept.

    Args:
        run: the training.
        items: the cases; their labels are not needed unless ``labeled``.
        use: what to do with each; of unlabeled cases ``pred`` holds class probabilities.
        labeled: whether the items have labels, so that they are treated as in the validation.
    """
    parser = run.parser()
    if not labeled:
        _let_labels_be_missing(parser)
    evaluator = _evaluator(run, parser, items)
    by_case = {item["case"]: item for item in items}

    def hand_over() -> None:
        for item, output in zip(evaluator.state.batch, evaluator.state.output, strict=True):
            use(by_case[item["case"]], output)

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, hand_over)
    evaluator.run()


def reason_of(error: Exception) -> str:
    """Say in one line why cases could not be segmented."""
    mistake = user_mistake(error)
    while isinstance(error.__cause__, Exception):  # MONAI wraps the reason into several exceptions
        error = error.__cause__
    return " ".join(str(mistake or f"{type(error).__name__}: {error}").split())


def _evaluator(run: TrainedRun, parser: ConfigParser, items: Iterable[Mapping[str, Any]]) -> Any:
    if "orientation" in parser:
        asked, datalist = (parser.get_parsed_content(name) for name in ("orientation", "datalist"))
        parser["orientation"] = network_orientation(run.model, datalist, asked)
    parser["validate::dataset::data"] = [dict(item) for item in items]
    parser["validate::handlers"] = []
    network = parser.get_parsed_content("network")
    check_network(network, str(run.model))
    content = torch.load(run.model, map_location="cpu", weights_only=True)
    network.load_state_dict(content.get("model", content))
    return parser.get_parsed_content("validate::evaluator")


def _let_labels_be_missing(parser: ConfigParser) -> None:
    """Leave out what needs annotations, and end with probabilities instead of classes."""
    for transform in parser["validate::preprocessing::transforms"]:
        if transform.get("keys") != "image":  # both, by name or by reference, or the label alone
            transform["allow_missing_keys"] = True
    # an evaluator's output has a label all the same, which is None
    after = [it for it in parser["validate::postprocessing::transforms"] if it.get("keys") not in ("label", ["label"])]
    ends = (number for number, transform in enumerate(after) if transform["_target_"].endswith("AsDiscreted"))
    parser["validate::postprocessing::transforms"] = after[: next(ends)]
    parser["validate::evaluator::key_val_metric"] = None
