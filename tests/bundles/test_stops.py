# SPDX-License-Identifier: Apache-2.0
"""A training that is stopped from outside leaves a checkpoint, one message and no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from metassl_monai.bundle.locate import bundle_command, bundle_path, config_files

PHANTOM = bundle_path("phantom_segmentation")
TINY = [
    *("--features", "[4,4,4,4,4]", "--spatial_size", "[32,32]", "--labeled_batch_size", "2"),
    *("--unlabeled_batch_size", "2", "--iterations", "5000", "--iterations_per_epoch", "2", "--check_data", "False"),
    *("--phantom", "{'cases':6,'labeled':1,'validation':1,'test':1,'size':[32,32,3]}", "--picture_interval", "9999"),
]


def raw(out):
    files = config_files(PHANTOM, ["train"])
    return [sys.executable, *bundle_command("training", files, [*TINY, *outputs(out)])[1:]]


def through_metassl(out):
    start = "from metassl_monai.cli import main; main()"
    return [sys.executable, "-c", start, "train", str(PHANTOM), *TINY, *outputs(out)]


def outputs(out):
    return ["--output_dir", str(out / "run"), "--dataset_dir", str(out / "data")]


def started(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_epochs(out, process, epochs=2):
    history = out / "run" / "history.csv"
    deadline = time.monotonic() + 300
    while not history.is_file() or history.read_text().count("\n") <= epochs:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def processes_in(folder):
    """The processes of this machine whose command line names the folder."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if os.fsencode(str(folder)) in file.read():
                    found.append(int(entry))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="lists processes by /proc")
def test_a_training_that_is_stopped_says_where_to_go_on_and_is_gone(tmp_path):
    first = started(through_metassl(tmp_path))
    wait_for_epochs(tmp_path, first)
    second = subprocess.run([*raw(tmp_path), "--resume", "True"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process trains in this folder" in second.stderr
    assert "Traceback" not in second.stderr
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM." in output
    assert "--resume True goes on from there" in output
    assert "Traceback" not in output
    assert processes_in(tmp_path / "run") == []
    checkpoint = torch.load(tmp_path / "run" / "models" / "checkpoint.pt", weights_only=True)
    assert f"checkpoint.pt holds epoch {checkpoint['epoch']} of 2500" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_signal_that_stops_a_program_ends_it_alike(number, workers, tmp_path):
    process = started([*raw(tmp_path), "--num_workers", str(workers)])
    wait_for_epochs(tmp_path, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "--resume True goes on from there" in output
    assert "Traceback" not in output


def rank_of(process):
    with open(f"/proc/{process}/environ", "rb") as file:
        variables = dict(entry.partition(b"=")[::2] for entry in file.read().split(b"\0"))
    return variables.get(b"RANK")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="lists processes by /proc")
def test_a_process_of_two_that_hangs_ends_the_job_with_a_message(tmp_path):
    configs = config_files(PHANTOM, ["train", "mean_teacher", "multi_gpu_train"])
    limit = ["--timeout_minutes", "0.15"]  # 9 s
    two = [word.replace("'validation':1", "'validation':2") for word in TINY]  # a case for each process
    command = bundle_command("training", configs, [*two, *outputs(tmp_path), *limit])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    job = subprocess.Popen(
        [sys.executable, *launcher, *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    wait_for_epochs(tmp_path, job)
    (second,) = [process for process in processes_in(tmp_path / "run") if rank_of(process) == b"1"]
    os.kill(second, signal.SIGSTOP)
    start = time.monotonic()
    output, _ = job.communicate(timeout=300)
    assert 9 <= time.monotonic() - start < 9 + 60  # torchrun waits 30 s for the process that hangs before it kills it
    assert job.returncode == 1
    assert "did not answer within --timeout_minutes" in output
    assert "--resume True goes on from the last checkpoint" in output
    assert processes_in(tmp_path / "run") == []
    assert (tmp_path / "run" / "models" / "checkpoint.pt").is_file()
