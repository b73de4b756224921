# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in, what comes out is a result or one of the documented errors: no other exception, and no hanging."""

from __future__ import annotations

import copy
import inspect
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metassl_monai.bundle import check_command_line
from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.data import check_datalist, check_images
from metassl_monai.data.datalist import read_datalist
from metassl_monai.data.datalist_structure import datalist_problems
from metassl_monai.data.problems import DatalistError, Problem
from metassl_monai.losses import (
    PRESETS,
    CrossEntropyDiceLoss,
    CrossEntropyLinearDiceLoss,
    KLDivergenceLoss,
    PseudoLabelDiceLoss,
    PseudoLabelLinearDiceLoss,
    PseudoLabelLoss,
    SoftmaxMSELoss,
    metassl_losses,
)

fuzz = settings(
    max_examples=settings.default.max_examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SECONDS = 20
"""What no single input may take, on however busy a machine."""

# ---------------------------------------------------------------------------------------------------------- datalists

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
paths = st.sampled_from(["images/a.nii.gz", "", "..", "/a", "a\0b", "C:\\a", "~/a", "a" * 300, ".", "images", "\ud800"])
anything = st.recursive(
    scalars | paths,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3),
    max_leaves=6,
)
VALID = {
    "name": "fuzz",
    "labels": {"0": "background", "1": "tumor"},
    "label_values": {"0": 0, "255": 1},
    "orientation": "RAS",
    "channels": ["t1"],
    "ignore": 7,
    "labeled": [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz", "subject": "a", "case": "a"}],
    "unlabeled": [{"image": ["images/b.nii.gz"], "subject": "b", "case": "b"}],
    "validation": [],
    "test": [{"image": "images/c.nii.gz", "label": "labels/c.nii.gz", "subject": "c", "case": "c"}],
    "monitor": [],
}


def places(content, path=()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = sorted(places(VALID), key=str)


def changed(edits):
    content = copy.deepcopy(VALID)
    for place, value in edits:
        parent = content
        try:
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
        except (KeyError, IndexError, TypeError):  # an edit before has replaced it
            continue
    return content


def refusal(call, *arguments):
    """The message of a documented error; None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(*arguments)
        except ValueError as error:  # of which UserError and DatalistError are
            return str(error)
    return None


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@fuzz
@given(edits=st.lists(st.tuples(st.sampled_from(PLACES), anything), min_size=1, max_size=4))
def test_datalists(edits, folder):
    content = changed(edits)
    errors = list(datalist_problems(content, "where"))
    assert all(isinstance(error, Problem) and all(error) for error in errors)
    file = folder / "datalist.json"
    file.write_text(json.dumps(content))
    assert check_datalist(file, folder)  # no image is there
    if errors:
        with pytest.raises(DatalistError):
            read_datalist(file)
    else:
        assert read_datalist(file)["name"] == content["name"]


@fuzz
@given(content=st.binary(max_size=60) | anything.map(lambda x: json.dumps(x).encode()) | st.just(b"[" * 100_000))
def test_files_that_are_no_datalists(content, folder):
    file = folder / "any.json"
    file.write_bytes(content)
    with pytest.raises(DatalistError):
        read_datalist(file)
    assert check_datalist(file, folder)


# ------------------------------------------------------------------------------------------------------------- images

FIELDS = {name: kind.fields[name][1] for kind in [nibabel.Nifti1Header.template_dtype] for name in kind.names}
HEADER = nibabel.Nifti1Image(np.zeros((4, 5, 3), np.int16), np.eye(4)).header
HEADER["vox_offset"] = 352
SOUND = HEADER.binaryblock + bytes(4) + bytes(4 * 5 * 3 * 2)
numbers = st.sampled_from(
    [b"\xff" * 8, b"\0" * 8, b"\xff\x7f" * 4, b"\x00\x80" * 4, b"\0\0\xc0\x7f" * 2, b"\0\0\x80\x7f" * 2]
)


@fuzz
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(sorted(FIELDS)), st.binary(min_size=1, max_size=8) | numbers), max_size=4
    ),
    cut=st.none() | st.integers(0, len(SOUND)),
    packed=st.booleans(),
)
def test_headers_of_nifti_files(changes, cut, packed, folder):
    content = bytearray(SOUND)
    for name, value in changes:
        content[FIELDS[name] : FIELDS[name] + len(value)] = value
    file = folder / f"image.nii{'.gz' if packed else ''}"
    with nibabel.openers.ImageOpener(str(file), "wb") as stream:
        stream.write(bytes(content[:cut]))
    start = time.monotonic()
    problems = check_images([file])
    assert time.monotonic() - start < SECONDS
    assert all(problem.file == str(file) and problem.cause and problem.remedy for problem in problems)
    if not changes and cut in (None, len(SOUND)):
        assert problems == []


# ------------------------------------------------------------------------------------------------------ command lines

TRAIN = str(config_files(bundle_path("phantom_segmentation"), ["train"])[0])
IDS = sorted(json.loads(Path(TRAIN).read_text()))
ids = st.sampled_from([*IDS, "train::trainer::max_epochs", "train#trainer", "tracking", "args_file"]) | st.text(
    max_size=6
)
values = st.text(max_size=8) | st.sampled_from(
    ["True", "0", "-1", "1e400", "[1,", "$1", "@x", "%y", "{", "'", "1_0", "0x"]
)
pairs = st.tuples(ids.map("--{}".format), values) | st.builds("--{}={}".format, ids, values).map(lambda word: (word,))
words = st.one_of(pairs, pairs, pairs, pairs, st.tuples(values), st.tuples(st.just("--config_file"), values))


@fuzz
@given(parts=st.lists(words, max_size=4), at=st.integers(0, 2))
def test_command_lines(parts, at):
    given = [word for part in parts for word in part]
    command = ["run", "training", "--config_file", TRAIN]
    command = [*command[:at], *given, *command[at:]]
    hook = sys.excepthook
    try:
        message = refusal(check_command_line, ["monai/bundle/__main__.py", *command])
    finally:
        sys.excepthook = hook
    assert message is None or message.startswith("Nothing was started:")


# ------------------------------------------------------------------------------------------------------------- losses

OWN = [
    *(CrossEntropyDiceLoss, CrossEntropyLinearDiceLoss, PseudoLabelDiceLoss, PseudoLabelLinearDiceLoss),
    *(KLDivergenceLoss, PseudoLabelLoss, SoftmaxMSELoss),
]
LOSSES = [*(kind() for kind in OWN), *(loss for name in PRESETS for loss in metassl_losses(3, name))]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
shapes = st.sampled_from([(2, 3, 4, 4), (1, 3, 4, 4, 2)]) | st.lists(st.integers(0, 4), max_size=5).map(tuple)


@st.composite
def tensors(draw, like=None, classes=0):
    """Shapes near one that fits, any type, and values that are none; class indices stay below ``classes``.

    Whether they do is looked at where files are read: a loss that looked would wait for the device.
    """
    shape = draw(shapes) if like is None or draw(st.integers(0, 4)) == 0 else like
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = (
        torch.randint(0, classes, shape, generator=generator).float()
        if classes
        else torch.randn(shape, generator=generator)
    )
    special = draw(st.sampled_from([None, None, float("nan"), float("inf"), -float("inf"), 1e38]))
    if special is not None and tensor.numel() and not classes:
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = special
    return tensor.to(draw(st.sampled_from(DTYPES)))


@st.composite
def arguments(draw):
    shape = draw(shapes)
    one = (shape[0], 1, *shape[2:]) if len(shape) > 1 else shape
    classes = max([1, *shape[1:2]])
    return {
        "input": draw(tensors(shape)),
        "target": draw(tensors(one, classes)),
        "reference": draw(st.none() | tensors(shape)),
        "label": draw(st.none() | tensors(one, classes)),
        "mask": draw(st.none() | tensors(one)),
        "ramp": draw(st.sampled_from([0.0, 0.5, 1.0])),
    }


@fuzz
@given(loss=st.sampled_from(LOSSES), given_=arguments())
def test_losses(loss, given_):
    loss = copy.deepcopy(loss)
    takes = inspect.signature(loss.forward).parameters
    used = {name: value for name, value in given_.items() if name in takes}
    if takes["reference"].default is inspect.Parameter.empty and used["reference"] is None:
        used["reference"] = used["input"]
    values = []
    message = refusal(lambda: values.append(loss(**used)))
    if message is not None:
        assert message
        return
    (value,) = values
    assert value.shape == ()
    tensors = [x for x in used.values() if isinstance(x, torch.Tensor) and x.numel()]
    if tensors and all(x.dtype in (torch.float32, torch.float64) and x.abs().max() < 100 for x in tensors):
        assert torch.isfinite(value)
