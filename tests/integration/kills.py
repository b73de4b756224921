# SPDX-License-Identifier: Apache-2.0
"""Kill trainings at random moments, let them go on, and compare with one that nobody disturbed.

``python tests/integration/kills.py --kills 60 --out kills.json`` takes about ten seconds a kill. Signals come at random
moments; two further kinds of ending are aimed at the moments at which a checkpoint is written. A training goes on
with ``--resume True`` until it is complete. Then the weights, the state of the method, the optimizer and the moving
average, the history and the kept networks must equal those of the uninterrupted training, and MLflow must have one run.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metassl_monai.files import write_json

sys.path.insert(0, str(Path(__file__).parent))
from killed_training import BUNDLE, EPOCHS, KINDS, random_ending, train

# before a training takes over the signals, or after it gave them back, a program ends as any other
STATUSES = {"SIGTERM": {143, -15}, "SIGINT": {130, 1, -2}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="over all methods")
    parser.add_argument("--methods", nargs="+", default=methods_of_the_bundle(), help="overlays; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    shares = [given.kills // len(given.methods)] * len(given.methods)
    for i in range(given.kills - sum(shares)):
        shares[i] += 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        for method, kills in zip(given.methods, shares, strict=True):
            rows.append(killed(method, kills, chance, Path(folder)))
            sys.stdout.write(said(rows[-1]) + "\n")
            sys.stdout.flush()
            if given.out:
                write_json(given.out, {"seed": given.seed, "epochs": EPOCHS, **total(rows), "methods": rows})
    sys.stdout.write(json.dumps(total(rows)) + "\n")
    sys.exit(0 if all(map(sound, rows)) else 1)


def methods_of_the_bundle() -> list[str]:
    files = sorted((BUNDLE / "configs").glob("*.json"))
    return [file.stem for file in files if file.stem != "train" and "method_def" in json.loads(file.read_text())]


def killed(method: str, kills: int, chance: random.Random, folder: Path) -> dict[str, Any]:
    """Kill trainings of a method so many times; a training that is complete too early is followed by another one."""
    data, database = folder / "data", folder / "mlruns.db"
    begun = time.monotonic()
    whole = folder / f"{method}_whole"
    expect(train(method, whole, data), {0}, whole)
    seconds = time.monotonic() - begun
    kinds: Counter[str] = Counter()
    names: list[str] = []
    found: Counter[str] = Counter()
    while sum(kinds.values()) < kills:
        names.append(f"{method}_{len(names)}")
        run = folder / names[-1]
        status = -1
        while sum(kinds.values()) < kills and status != 0:
            kind = next_kind(kinds, chance)
            status = train(method, run, data, database, ending=random_ending(chance, kind, seconds))
            kinds[kind] += status != 0
            expect(status, {0, *STATUSES.get(kind, {-9})}, run)
        if status != 0:
            expect(train(method, run, data, database), {0}, run)
        for what, difference in differences(whole, run).items():
            found[what] = max(found[what], difference)
    runs = tracked_runs(database, names)
    took = round(time.monotonic() - begun)
    return {"method": method, "kills": dict(kinds), "trainings": len(names), **found, "mlflow": runs, "seconds": took}


def next_kind(done: Counter[str], chance: random.Random) -> str:
    """One of the kinds that were had least often."""
    fewest = min(done[kind] for kind in KINDS)
    return chance.choice([kind for kind in KINDS if done[kind] == fewest])


def expect(status: int, wanted: set[int], run: Path) -> None:
    if status not in wanted:
        sys.exit(f"exit status {status} and not one of {sorted(wanted)}:\n{(run / 'log.txt').read_text()[-3000:]}")


def differences(whole: Path, run: Path) -> dict[str, float]:
    """The largest absolute difference in each of the files that a training leaves; infinite where one is missing."""
    names = sorted({path.name for folder in (whole, run) for path in (folder / "models").glob("*.pt")})
    found = {"history.csv": largest(table(whole), table(run))}
    for name in names:
        files = [folder / "models" / name for folder in (whole, run)]
        both = all(file.is_file() for file in files)
        found[name] = largest(*(torch.load(file, weights_only=True) for file in files)) if both else math.inf
    return found


def table(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def largest(first: Any, second: Any) -> float:
    """The largest absolute difference of two nested states; infinite where they differ in anything but a number."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return largest(list(first.values()), list(second.values())) if list(first) == list(second) else math.inf
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return max(map(largest, first, second), default=0.0) if len(first) == len(second) else math.inf
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first.shape != second.shape or first.dtype != second.dtype:
            return math.inf
        return (
            0.0
            if torch.equal(first, second)
            else float((first.double() - second.double()).abs().nan_to_num(math.inf).max())
        )
    return 0.0 if type(first) is type(second) and first == second else math.inf


def tracked_runs(database: Path, names: Sequence[str]) -> str:
    """``one finished run each, no epoch twice``, or what is so instead."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}")
    mistakes = []
    for name in names:  # each training in an experiment of its own
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        mistakes += [f"{name} has {len(runs)} runs"] if len(runs) != 1 else []
        for run in runs:
            steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss"))
            if run.info.status != "FINISHED" or steps != list(range(1, EPOCHS + 1)):
                mistakes.append(f"{name} is {run.info.status} and has the epochs {steps}")
    return "; ".join(mistakes) or "one finished run each, no epoch twice"


def sound(row: Mapping[str, Any]) -> bool:
    return total([row])["largest_difference"] == 0 and row["mlflow"].startswith("one finished")


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kinds = sum((Counter(row["kills"]) for row in rows), Counter())
    worst = max((v for row in rows for k, v in row.items() if k.endswith((".pt", ".csv"))), default=math.inf)
    return {
        "kills": sum(kinds.values()),
        "kinds": dict(kinds),
        "trainings": sum(row["trainings"] for row in rows),
        "largest_difference": worst if math.isfinite(worst) else "not comparable",
    }


def said(row: Mapping[str, Any]) -> str:
    worst = total([row])["largest_difference"]
    kills = ", ".join(f"{count} {kind}" for kind, count in row["kills"].items())
    return (
        f"{row['method']:16} {sum(row['kills'].values()):3} kills in {row['trainings']} trainings ({kills}); "
        f"largest difference {worst}; MLflow: {row['mlflow']}; {row['seconds']} s"
    )


if __name__ == "__main__":
    main()
