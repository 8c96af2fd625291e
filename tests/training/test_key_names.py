"""Keys of kohya's and diffusers' scripts are taken, or the refusal gives the right one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio_train import (
    ConfigError,
    ControlNetConfig,
    DataConfig,
    LcmConfig,
    LoraConfig,
    PriorConfig,
    lora_config_from_yaml,
)
from intaglio_train.key_names import REFUSED, TAKEN

Keys = Callable[..., dict[str, Any]]
KINDS: dict[str, list[type[Any]]] = {
    "": [LoraConfig, LcmConfig, ControlNetConfig],
    "data": [DataConfig],
    "prior": [PriorConfig],
    "prior.data": [DataConfig],
}


def read(tmp_path: Path, keys: dict[str, Any], overrides: dict[str, Any] | None = None) -> LoraConfig:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(keys))
    return lora_config_from_yaml(path, overrides)


def test_every_name_leads_to_a_key() -> None:
    for name, path in TAKEN.items():
        group, _, key = path.rpartition(".")
        assert any(key in kind.model_fields for kind in KINDS[group]), name
    assert not set(TAKEN) & set(REFUSED)
    assert not (set(TAKEN) | set(REFUSED)) & {*LcmConfig.model_fields, *ControlNetConfig.model_fields}


def test_a_configuration_of_kohyas_names_is_read(tmp_path: Path) -> None:
    keys = {
        "output_name": "mara",
        "output_dir": "models",
        "pretrained_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0",
        "train_data_dir": "img",
        "reg_data_dir": "reg",
        "caption_extension": "txt",
        "resolution": "1024,768",
        "max_train_steps": 1600,
        "train_batch_size": 2,
        "learning_rate": 1e-4,
        "unet_lr": 1e-4,
        "text_encoder_lr": 5e-5,
        "train_text_encoder": True,
        "network_dim": 32,
        "network_alpha": 16,
        "lr_scheduler": "cosine_with_restarts",
        "lr_scheduler_num_cycles": 3,
        "lr_warmup_steps": 100,
        "mixed_precision": "bf16",
        "max_bucket_reso": 2048,
        "log_with": "wandb",
    }
    config = read(tmp_path, keys)
    assert (config.name, config.output, config.size) == ("mara", tmp_path / "models", (1024, 768))
    assert (config.steps, config.batch_size, config.rank, config.alpha) == (1600, 2, 32, 16.0)
    assert (config.learning_rate, config.text_learning_rate) == (1e-4, 5e-5)
    assert (config.schedule, config.schedule_cycles, config.warmup_steps) == ("cosine_with_restarts", 3, 100)
    assert config.prior is not None
    assert (config.data.folder, config.prior.data.folder) == (tmp_path / "img", tmp_path / "reg")
    assert (config.data.caption_extension, config.report_to) == (".txt", ("wandb",))
    replaced = read(tmp_path, keys, {"data": Path("other"), "steps": 3})
    assert (replaced.data.folder, replaced.data.caption_extension, replaced.steps) == (
        Path("other"),
        ".txt",
        3,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_dim": 8, "rank": 4}, "network_dim is rank here, and both are given: 8 and 4; keep one"),
        ({"unet_lr": 1e-5}, "unet_lr is learning_rate here, and both are given"),
        ({"network_dim": 8}, "network_dim without network_alpha: kohya's scripts then take network_alpha: 1"),
        (
            {"lr_scheduler": "constant", "lr_warmup_steps": 9},
            "lr_scheduler: constant with a warm-up: kohya's",
        ),
        ({"lr_warmup_steps": 9}, "lr_scheduler: constant with a warm-up: kohya's"),
        ({"data": "pics", "caption_extension": ".txt"}, "but data is 'pics'; write data: {folder: pics}"),
        ({"optimizer_type": "AdamW8bit"}, "optimizer_type: the optimizer is AdamW; leave it out"),
        ({"max_train_epochs": 10}, "max_train_epochs: write steps, which are epochs x images x repeats"),
        ({"resize": True}, "resize: write fit: buckets, fit: crop or fit: exact"),
        ({"tensorboard": True}, r"tensorboard: write report_to: [tensorboard]"),
        ({"network_dims": 8}, "unknown key network_dims; did you mean network_dim (rank here)?"),
        ({"text_encoder_lr": 1e-5}, "text_learning_rate needs train_text_encoders: true"),
        ({"bucket_reso_steps": 20}, "bucket_reso_steps = 20: must be a multiple of 8"),
        (
            {"min_bucket_reso": 256, "max_bucket_reso": 128},
            "min_bucket_reso 256 must be at most max_bucket_reso 128",
        ),
        ({"report_to": "comet"}, "report_to"),
        (
            {"lr_scheduler": "cosine", "lr_power": 2.0},
            "schedule_power = 2.0 is read with schedule: polynomial only",
        ),
        (
            {"fit": "crop", "bucket_no_upscale": True},
            "bucket_no_upscale = True is read with fit: buckets only",
        ),
        ({"fit": "crop", "bucket_reso_steps": 32}, "bucket_reso_steps = 32 is read with fit: buckets only"),
        (
            {"bucket_no_upscale": True, "max_bucket_reso": 2048},
            "max_bucket_reso = 2048 is read with bucket_no_upscale: false only",
        ),
    ],
)
def test_what_cannot_be_taken_names_what_can(
    keys: Keys, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, keys(**changes))
    assert message in str(error.value)
