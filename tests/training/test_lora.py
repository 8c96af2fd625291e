"""LoRA runs: files that diffusers loads, in both layouts, and options that do what they say."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.optimization import get_scheduler
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from intaglio_train import LoraConfig, train_lora
from intaglio_train import lora as trainer
from intaglio_train.lora_files import UnetLevels, kohya_module_name

Keys = Callable[..., dict[str, Any]]
Run = Callable[[dict[str, Any]], tuple[list[float], dict[str, torch.Tensor]]]


def losses(path: Path) -> list[float]:
    with path.open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def answers(model: Path, lora: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """UNet output and text context of the base with a LoRA loaded by diffusers."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        str(model), torch_dtype=torch.float32, add_watermarker=False
    )
    pipeline.to(torch.float32)
    if lora is not None:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    with torch.no_grad():
        context, _, pooled, _ = pipeline.encode_prompt(
            "a thing 3", device="cpu", do_classifier_free_guidance=False
        )
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        return pipeline.unet(latents, torch.tensor(500), context, added_cond_kwargs=added).sample, context


def test_both_layouts_load_with_the_trained_strength(keys: Keys, model: Path) -> None:
    changes = {
        "rank": 4,
        "alpha": 10,
        "targets": ["attention", "feed_forward", "conv"],
        "train_text_encoders": True,
        "format": "both",
        "trigger_words": ["mara"],
        "learning_rate": 0.01,
        "steps": 3,
    }
    result = train_lora(LoraConfig.model_validate(keys(**changes)))
    base, ours, kohya = (answers(model, file) for file in (None, *result.files))
    for part in range(2):
        assert (ours[part] - base[part]).abs().max() > 0.01
        torch.testing.assert_close(kohya[part], ours[part], rtol=1e-3, atol=1e-3)
    # alpha / rank = 2.5 is in the diffusers file's `up`, and beside kohya's
    plain, named = (load_file(str(file)) for file in result.files)
    module = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    up = named["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight"]
    torch.testing.assert_close(
        plain[f"unet.{module}.lora_B.weight"].float(), 2.5 * up.float(), rtol=2e-3, atol=1e-5
    )
    assert named["lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"].item() == 10
    with safe_open(str(result.files[0]), framework="pt") as file:
        assert file.metadata()["ss_network_alpha"] == "4.0", "the scale is in the matrices"


def test_the_file_is_the_trained_network(keys: Keys, model: Path) -> None:
    """What diffusers computes with the file is what the trainer's own network computed."""
    seen: list[torch.Tensor] = []
    config = LoraConfig.model_validate(keys(alpha=32, learning_rate=0.01, format="diffusers"))
    written = trainer._write

    def look(config: LoraConfig, session: Any, outcome: Any) -> tuple[Path, ...]:
        unet = session.base.unet.eval()
        with torch.no_grad():
            context, _, pooled, _ = session.base.pipeline().encode_prompt(
                "a thing 3", device="cpu", do_classifier_free_guidance=False
            )
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
            added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
            seen.append(unet(latents, torch.tensor(500), context, added_cond_kwargs=added).sample)
        return written(config, session, outcome)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_write", look)
        result = train_lora(config)
    loaded, base = answers(model, result.files[0])[0], answers(model, None)[0]
    torch.testing.assert_close(loaded, seen[0], rtol=1e-3, atol=1e-3)
    assert (loaded - base).abs().max() > 0.01


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
            "input_blocks.8.1.transformer_blocks.9.attn2.to_out.0",
        ),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        (
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
            "middle_block.1.transformer_blocks.0.ff.net.2",
        ),
        ("up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
    ],
)
def test_kohya_names_are_sdxls_own(module: str, name: str) -> None:
    assert kohya_module_name(module, UnetLevels(2, frozenset({0, 1}))) == name


SAME_CURVE: list[dict[str, Any]] = [
    {"cache_latents": True, "cache_text": True},
    {"cache_latents": True, "cache_text": True, "cache_on": "host"},
    {"gradient_checkpointing": True},
    {
        "samples": {"prompts": ["a", "b"], "every": 1, "steps": 1, "negative_prompt": "c"},
        "report_to": "tensorboard",
    },
    {"ema_decay": 0.5, "loader_threads": 1, "log_every": 2, "checkpoint_every": 1, "keep_checkpoints": 1},
]
OTHER_CURVE: list[dict[str, Any]] = [
    {"learning_rate": 1e-2},
    {"schedule": "cosine"},
    {"schedule": "polynomial", "schedule_power": 3.0},
    {"warmup_steps": 3},
    {"weight_decay": 0.9, "learning_rate": 0.1},
    {"max_gradient_norm": 1e-9},
    {"seed": 1},
    {"batch_size": 3},
    {"gradient_accumulation": 2},
    {"min_snr_gamma": 0.01},
    {"caption_dropout": 0.9},
    {"noise_offset": 0.5},
    {"mixed_precision": "bf16"},
    {"rank": 2, "learning_rate": 0.1},
    {"alpha": 64},
    {"dropout": 0.5, "learning_rate": 0.1},
    {"targets": ["feed_forward"]},
    {"train_text_encoders": True},
    {"train_text_encoders": True, "text_learning_rate": 0.1},
    {"limit": 2},
    {"prior": {"weight": 0.5}},
]


@pytest.fixture(scope="module")
def plain(model: Path, arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Curve and weights of a two-step run with changed keys."""
    known: dict[str, Any] = {}

    def run(changes: dict[str, Any]) -> tuple[list[float], dict[str, torch.Tensor]]:
        torch.set_num_threads(1)
        if repr(changes) not in known:
            out = tmp_path_factory.mktemp("run")
            data: dict[str, Any] = {"folder": str(arrays)}
            more = dict(changes)
            if "limit" in more:
                data["limit"] = more.pop("limit")
            if "prior" in more:
                more["prior"] = more["prior"] | {"data": {"folder": str(arrays / "pairs")}}
            shared = {
                "name": "tiny",
                "model": str(model),
                "data": data,
                "output": str(out),
                "resolution": 64,
                "device": "cpu",
                "log_every": 1,
            }
            config = LoraConfig.model_validate(
                shared | {"steps": 2, "batch_size": 2, "learning_rate": 1e-3} | more
            )
            result = train_lora(config)
            known[repr(changes)] = losses(result.losses), load_file(str(result.files[0]))
        return known[repr(changes)]  # type: ignore[no-any-return]

    return run


@pytest.mark.parametrize("changes", SAME_CURVE, ids=str)
def test_what_saves_memory_or_shows_more_trains_the_same(plain: Any, changes: dict[str, Any]) -> None:
    assert plain(changes)[0] == pytest.approx(plain({})[0], rel=2e-4)


@pytest.mark.parametrize("changes", OTHER_CURVE, ids=str)
def test_every_option_of_learning_matters(plain: Any, changes: dict[str, Any]) -> None:
    curve, weights = plain(changes)
    base_curve, base_weights = plain({})
    assert all(np.isfinite(curve))
    same = weights.keys() == base_weights.keys() and all(
        weights[name].equal(base_weights[name]) for name in weights
    )
    assert not same or curve != base_curve


SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "constant", "warmup_steps": 4},
    {"schedule": "cosine_with_restarts", "schedule_cycles": 2},
]


@pytest.mark.parametrize("changes", SCHEDULES, ids=str)
def test_learning_rates_are_diffusers_and_a_resumed_run_has_them_too(
    keys: Keys, changes: dict[str, Any]
) -> None:
    config = {"steps": 5, "cache_text": True, "cache_latents": True, "checkpoint_every": 3, **changes}
    train_lora(LoraConfig.model_validate(keys(**(config | {"steps": 3}))))
    resumed = train_lora(LoraConfig.model_validate(keys(**config)))
    with resumed.losses.open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    name = changes["schedule"]
    scheduler = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=changes.get("warmup_steps", 0),
        num_training_steps=5,
        num_cycles=changes.get("schedule_cycles", 1),
        power=changes.get("schedule_power", 1.0),
    )
    expected = []
    for _ in range(5):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[3:] == pytest.approx(expected[3:])


def test_an_average_is_what_is_saved(plain: Any) -> None:
    names = [name for name in plain({})[1] if name.endswith("lora_B.weight")]
    ends, averages = plain({})[1], plain({"ema_decay": 0.9})[1]
    assert all(averages[name].abs().sum() < ends[name].abs().sum() for name in names)


def test_samples_and_tensorboard_are_written(keys: Keys, tmp_path: Path) -> None:
    samples = {"prompts": ["a", "b"], "every": 1, "steps": 1}
    train_lora(LoraConfig.model_validate(keys(samples=samples, report_to=["tensorboard"])))
    assert [path.name for path in sorted((tmp_path / "out" / "samples").iterdir())] == [
        "step-00000001.png",
        "step-00000002.png",
    ]
    assert Image.open(tmp_path / "out" / "samples" / "step-00000002.png").size == (128, 64)
    assert list((tmp_path / "out" / "tensorboard" / "tiny").glob("events*"))


def test_resized_images_train_at_the_asked_size(keys: Keys, arrays: Path) -> None:
    result = train_lora(
        LoraConfig.model_validate(
            keys(data={"folder": str(arrays / "pairs")}, resolution=[48, 32], fit="crop", steps=1)
        )
    )
    assert len(losses(result.losses)) == 1
