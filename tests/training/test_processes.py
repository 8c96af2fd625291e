"""Several processes train together what one would; signals end them with a checkpoint."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from intaglio_train import LoraConfig, train_lora
from intaglio_train.processes import is_first, launched_processes, was_left_alone

Keys = Callable[..., dict[str, Any]]
TRAINING = Path(__file__).parents[2] / "training"
DEADLINE = 240.0
LAUNCHER = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
LAUNCHER += ("--mixed_precision", "no", "--dynamo_backend", "no")  # `--multi_gpu` starts two on a CPU too


def start(config: Path, *launcher: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TRAINING), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *launcher, "-m", "intaglio_train", "lora", str(config)]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def write(path: Path, keys: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(keys))
    return path


def losses(folder: Path) -> list[float]:
    with (folder / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.long
def test_two_processes_are_one_with_twice_the_batch(keys: Keys, tmp_path: Path) -> None:
    """Images of two aspects, so that both processes must take the same bucket."""
    data = tmp_path / "data" / "2_thing"
    data.mkdir(parents=True)
    for index in range(6):
        size = (64, 64) if index % 2 else (96, 32)
        Image.new("RGB", size, (40 * index, 90, 200 - 30 * index)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(f"a thing {index}\nthing number {index}")
    shared = {
        "data": {"folder": str(data.parent)},
        "bucket_reso_steps": 32,
        "min_bucket_reso": 32,
        "steps": 3,
        "gradient_accumulation": 2,
        "noise_offset": 0.1,
        "ema_decay": 0.9,
        "samples": {"prompts": ["a"], "every": 3, "steps": 1},
        "date": "2026-01-02",
    }
    two = write(tmp_path / "two.yaml", keys(batch_size=2, output=str(tmp_path / "two"), **shared))
    process = start(two, *LAUNCHER)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    one = train_lora(LoraConfig.model_validate(keys(batch_size=4, output=str(tmp_path / "one"), **shared)))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    ours, theirs = load_file(str(tmp_path / "two" / "tiny.safetensors")), load_file(str(one.files[0]))
    for name, tensor in theirs.items():
        assert ours[name].float().allclose(tensor.float(), rtol=1e-2, atol=1e-4), name
    assert output.count("last loss") == 1, "one process speaks"
    assert len(list((tmp_path / "two" / "samples").iterdir())) == 1

    # A run of two goes on as one with the same batch.
    more = train_lora(
        LoraConfig.model_validate(keys(batch_size=4, output=str(tmp_path / "two"), **(shared | {"steps": 4})))
    )
    assert len(losses(more.losses.parent)) == 4


def test_sigterm_writes_a_checkpoint_and_ends_with_143(keys: Keys, tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", keys(steps=100_000, checkpoint_every=100_000))
    process = start(config)
    end = time.monotonic() + DEADLINE
    csv_file = tmp_path / "out" / "losses.csv"
    while time.monotonic() < end and process.poll() is None:
        if csv_file.exists() and "\n3," in csv_file.read_text():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signal.SIGTERM, output
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    done = int(checkpoint.stem.removeprefix("step-"))
    assert f"stopped at step {done}" in output
    assert len(losses(tmp_path / "out")) == done
    assert not list((tmp_path / "out").glob("*.safetensors"))
    rest = train_lora(LoraConfig.model_validate(keys(steps=done + 1)))
    assert (rest.outcome.steps, rest.outcome.interrupted) == (done + 1, False)


def test_processes_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (launched_processes(), is_first()) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (launched_processes(), is_first()) == (2, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first()


def test_independent_runs_of_srun_are_one_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert (launched_processes(), is_first()) == (1, True)
    monkeypatch.setenv("MASTER_ADDR", "node1")
    assert (launched_processes(), is_first()) == (8, False)


def test_an_address_of_the_cluster_is_no_sign_of_lost_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "node1")
    assert not was_left_alone()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert was_left_alone()
