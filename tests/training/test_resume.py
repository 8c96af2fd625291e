"""A run that is killed continues as if it had not been; a run that is another's is refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from intaglio_train import CheckpointError, LcmConfig, LoraConfig, lora_config_from_yaml, train_lora
from intaglio_train.checkpoint import Checkpoints
from intaglio_train.command import app
from intaglio_train.progress import SilentReporter

Keys = Callable[..., dict[str, Any]]
TRAINING = Path(__file__).parents[2] / "training"
DEADLINE = 240.0


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TRAINING), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "intaglio_train", "lora", str(config), *arguments]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(process: subprocess.Popen[str], losses: Path, step: int) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and process.poll() is None:
        if losses.exists() and f"\n{step}," in losses.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"step {step} was not reached: {process.communicate()[0]}")


def test_a_run_killed_at_step_10_goes_on_with_the_same_curve(keys: Keys, tmp_path: Path) -> None:
    changes = {
        "steps": 14,
        "dropout": 0.2,
        "gradient_accumulation": 2,
        "schedule": "cosine",
        "checkpoint_every": 4,
        "cache_latents": True,
    }
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys(cache_text=True, **changes)))
    process = start(config)
    wait_for_step(process, tmp_path / "out" / "losses.csv", 10)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "tiny.safetensors").exists()

    resumed = CliRunner().invoke(app, ["lora", str(config)])
    assert resumed.exit_code == 0
    assert re.search(r"resuming at step (8|12) of 14", resumed.output)
    whole = train_lora(
        LoraConfig.model_validate(keys(output=str(tmp_path / "whole"), cache_text=True, **changes))
    )
    for name in ("losses.csv", "tiny.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (whole.losses.parent / name).read_bytes()


class InterruptingReporter(SilentReporter):
    """Presses Ctrl-C at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kind", [LoraConfig, LcmConfig])
def test_an_interrupted_run_saves_its_step_and_goes_on(
    keys: Keys, tmp_path: Path, kind: type[LoraConfig]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    stopped = train_lora(kind.model_validate(keys(steps=5)), reporter=InterruptingReporter(3))
    assert (stopped.outcome.interrupted, stopped.outcome.steps, stopped.files) == (True, 3, ())
    assert signal.getsignal(signal.SIGINT) is before
    rest = train_lora(kind.model_validate(keys(steps=5)))
    whole = train_lora(kind.model_validate(keys(steps=5, output=str(tmp_path / "whole"))))
    assert rest.losses.read_bytes() == whole.losses.read_bytes()
    assert rest.files[0].read_bytes() == whole.files[0].read_bytes()


def test_the_newest_checkpoints_stay_and_no_partial_ones(keys: Keys, tmp_path: Path) -> None:
    train_lora(LoraConfig.model_validate(keys(steps=5, checkpoint_every=1, keep_checkpoints=2)))
    assert [path.name for path in sorted((tmp_path / "out" / "checkpoints").iterdir())] == [
        "step-00000004.pt",
        "step-00000005.pt",
    ]


def test_another_runs_checkpoint_is_refused_unless_told_to_restart(keys: Keys, arrays: Path) -> None:
    first = train_lora(LoraConfig.model_validate(keys()))
    before = first.losses.read_bytes()
    with pytest.raises(
        CheckpointError,
        match=r"another learning_rate \(0\.001 then, 0\.002 now\); restart with --no-resume",
    ):
        train_lora(LoraConfig.model_validate(keys(learning_rate=0.002)))
    with pytest.raises(CheckpointError, match="another data"):
        train_lora(LoraConfig.model_validate(keys(data={"folder": str(arrays), "limit": 3})))
    assert first.losses.read_bytes() == before
    again = train_lora(LoraConfig.model_validate(keys(learning_rate=0.002)), resume=False)
    assert again.losses.read_bytes() != before
    assert len(again.losses.read_text().splitlines()) == 3


def test_a_finished_run_writes_its_files_again_and_trains_no_more(keys: Keys) -> None:
    first = train_lora(LoraConfig.model_validate(keys()))
    weights = first.files[0].read_bytes()
    first.files[0].unlink()
    again = train_lora(LoraConfig.model_validate(keys()))
    assert again.files[0].read_bytes() == weights
    assert again.losses.read_text().count("\n") == 3


def test_a_damaged_checkpoint_is_named(keys: Keys, tmp_path: Path) -> None:
    train_lora(LoraConfig.model_validate(keys()))
    path = Checkpoints(tmp_path / "out" / "checkpoints", 1).paths()[-1]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step-00000002\.pt: damaged checkpoint"):
        train_lora(LoraConfig.model_validate(keys()))


def test_a_run_goes_on_from_another_folder_and_after_its_project_moved(
    keys: Keys, model: Path, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(model, project / "base")
    shutil.copytree(arrays, project / "images")
    prior = {"data": {"folder": "images", "limit": 2}}
    changes = {"model": "./base", "data": {"folder": "images"}, "output": "out", "prior": prior}
    (project / "run.yaml").write_text(yaml.safe_dump(keys(**changes)))
    monkeypatch.chdir(project)
    train_lora(lora_config_from_yaml(Path("run.yaml")))
    monkeypatch.chdir(tmp_path)
    project = project.rename(tmp_path / "moved")
    again = train_lora(lora_config_from_yaml(project / "run.yaml"), reporter=InterruptingReporter(1))
    assert (again.outcome.steps, again.outcome.interrupted) == (2, False)


def test_another_model_of_the_same_name_is_refused(keys: Keys, model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model, tmp_path / "base"))
    train_lora(LoraConfig.model_validate(keys(model=str(base))))
    path = base / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match="was made with another model; restart with --no-resume"):
        train_lora(LoraConfig.model_validate(keys(model=str(base))))


def test_processes_that_found_other_checkpoints_are_refused(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines without a shared output folder: one has a checkpoint, the other none."""
    monkeypatch.setattr("intaglio_train.loop.values_of_all", lambda _, value: [value, 4])
    with pytest.raises(CheckpointError, match="processes begin at steps 0 to 4; give all machines one"):
        train_lora(LoraConfig.model_validate(keys()))
