# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the words and values of a ``python -m monai.bundle run`` command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["config_order_mistakes", "value_mistakes", "word_mistakes"]

_LEAST = {
    "iterations": 1,
    "pretrain_iterations": 1,
    "iterations_per_epoch": 1,
    "labeled_batch_size": 1,
    "unlabeled_batch_size": 1,
    "val_interval": 1,
    "picture_interval": 1,
    "num_workers": 0,
    "seed": 0,
}
_MORE_THAN_0 = ("timeout_minutes",)
_CHOICES = {"keep": ("best", "last")}
_NAMES = {"method_name": "it only names the run: give the method's overlay in --config_file"}
_EXPRESSION = ("$", "@", "%")
_LAST = ("plain", "monitor")
"""Overlays that read what a method's overlay says, so that they come after it."""


def word_mistakes(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a message for each word that MONAI would ignore or take for something else.

    Args:
        arguments: the command line after ``monai.bundle``.

    Example:
        >>> list(word_mistakes(["run", "training", "-iterations", "5"]))
        ['-iterations: options begin with two dashes: write --iterations']
    """
    expected = 2  # the command and the run id
    for i, word in enumerate(arguments):
        before = arguments[i - 1] if i else ""
        if word.startswith("--"):
            following = arguments[i + 1] if i + 1 < len(arguments) else "--"
            if "=" not in word and following.startswith("--"):
                yield f"{word}: has no value: write {word} VALUE"
        elif before.startswith("-") and "=" not in before:
            continue  # its value
        elif word.startswith("-"):
            yield f"{word}: options begin with two dashes: write -{word}"
        elif expected:
            expected -= 1
        else:
            yield f"{word}: is no option: write --id VALUE, with quotes around a value that has spaces"


def value_mistakes(given: Mapping[str, str], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each value that is not what its id takes.

    What an id takes is what the config has for it: a number for a number, ``True`` or ``False`` for a truth value, a
    list for a list. Expressions and references (``$``, ``@``, ``%``) are left to MONAI.

    Args:
        given: value by id, as text.
        config: the ids of the config at its top level.

    Example:
        >>> list(value_mistakes({"resume": "false", "iterations": "0"}, {"resume": False, "iterations": 250}))
        ['--resume false: write True or False', '--iterations 0: must be 1 or more']
    """
    for name, text in given.items():
        if name in _NAMES:
            yield f"--{name}: {_NAMES[name]}"
        elif name in config and not text.startswith(_EXPRESSION):
            mistake = _value_mistake(name, text, config[name])
            if mistake:
                yield f"--{name} {text}: {mistake}"


def config_order_mistakes(files: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a message where the order of config files would train something other than their names say.

    Args:
        files: the files, in the order in which they are merged.
        contents: what each holds.
    """
    methods = [
        (i, file)
        for i, (file, content) in enumerate(zip(files, contents, strict=True))
        if "method_name" in content and "training" not in content
    ]
    if len(methods) > 1:
        names = ", ".join(Path(file).name for _, file in methods)
        yield f"--config_file: {names} are overlays of several methods, of which the last would be trained: give one"
    for i, (file, content) in enumerate(zip(files, contents, strict=True)):
        later = [Path(name).name for place, name in methods if place > i]
        if later and Path(file).stem in _LAST:
            yield f"--config_file: {Path(file).name} must come after {later[0]}, whose losses it is to choose"
        if i and {"training", "train"} <= set(content):
            yield f"--config_file: {Path(file).name} must come first: it would undo the files before it"


def _value_mistake(name: str, text: str, default: Any) -> str | None:
    value = _literal(text)
    if name in _CHOICES:
        return None if text in _CHOICES[name] else f"choose {' or '.join(_CHOICES[name])}"
    truth = isinstance(default, bool) or (_computed(default) and text.lower() in ("true", "false", "yes", "no"))
    if truth:
        return None if isinstance(value, bool) else "write True or False"
    if name in _LEAST or type(default) is int:
        if type(value) is not int:
            return "must be a whole number"
        least = _LEAST.get(name)
        return f"must be {least} or more" if least is not None and value < least else None
    if isinstance(default, float):
        if type(value) not in (int, float):
            return "must be a number"
        return "must be more than 0" if name in _MORE_THAN_0 and not value > 0 else None
    if isinstance(default, list):
        return None if isinstance(value, (list, tuple)) else "must be a list, such as [1,2]"
    return None


def _computed(default: Any) -> bool:
    return isinstance(default, str) and default.startswith("$")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
