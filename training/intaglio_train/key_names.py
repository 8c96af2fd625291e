"""Names that kohya's and diffusers' training scripts give to keys of a training YAML.

A name is taken where the key means the same here. Otherwise the refusal says what to write instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final

__all__ = ["REFUSED", "TAKEN", "with_own_names"]

TAKEN: Final[Mapping[str, str]] = {
    # kohya's sd-scripts
    "network_dim": "rank",
    "network_alpha": "alpha",
    "network_dropout": "dropout",
    "unet_lr": "learning_rate",
    "text_encoder_lr": "text_learning_rate",
    "lr_scheduler_num_cycles": "schedule_cycles",
    "caption_dropout_rate": "caption_dropout",
    "cache_text_encoder_outputs": "cache_text",
    "log_with": "report_to",
    "output_name": "name",
    "train_data_dir": "data.folder",
    "caption_extension": "data.caption_extension",
    "reg_data_dir": "prior.data.folder",
    "prior_loss_weight": "prior.weight",
    # diffusers' examples
    "caption_column": "data.caption_column",
    "image_column": "data.image_column",
    "snr_gamma": "min_snr_gamma",
    "num_ddim_timesteps": "teacher_steps",
    "proportion_empty_prompts": "caption_dropout",
    "train_text_encoder": "train_text_encoders",
    "checkpointing_steps": "checkpoint_every",
    "checkpoints_total_limit": "keep_checkpoints",
    "adam_weight_decay": "weight_decay",
    "lr_num_cycles": "schedule_cycles",
    "lr_power": "schedule_power",
    "controlnet_model_name_or_path": "init",
    # both
    "max_train_steps": "steps",
    "train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "lr": "learning_rate",
    "lr_scheduler": "schedule",
    "lr_warmup_steps": "warmup_steps",
    "lr_scheduler_power": "schedule_power",
    "max_grad_norm": "max_gradient_norm",
    "pretrained_model_name_or_path": "model",
    "output_dir": "output",
}
"""Their name -> ours; a point separates a group from its key."""

_WORKERS = "one thread reads the next batch while a step runs; leave it out"
_ALTERNATIVES = "it does not exist here; write several captions, one a line, and one is drawn each time"
REFUSED: Final[Mapping[str, str]] = {
    "max_data_loader_n_workers": _WORKERS,
    "dataloader_num_workers": _WORKERS,
    "clip_skip": "SDXL always reads the second-last layer; leave it out",
    "enable_bucket": "write fit: buckets (the default) or fit: crop",
    "flip_aug": "it does not exist here; add mirrored images to the folder",
    "random_flip": "it does not exist here; add mirrored images to the folder",
    "center_crop": "write fit: crop, which cuts at the centre",
    "random_crop": "it does not exist here; write fit: buckets or fit: crop",
    "keep_tokens": _ALTERNATIVES,
    "shuffle_caption": _ALTERNATIVES,
    "enable_wildcard": "a caption file of several lines always holds alternatives; leave it out",
    "logging_dir": "TensorBoard's files lie in OUTPUT/tensorboard; leave it out",
    "max_train_epochs": "write steps, which are epochs x images x repeats / batch_size",
    "num_train_epochs": "write steps, which are epochs x images x repeats / batch_size",
    "metadata_title": "the title is the run's name; write name",
    "network_args": "write targets: [attention, feed_forward, conv]",
    "network_module": "every LoRA here is networks.lora's; write targets: [attention, feed_forward, conv]",
    "network_train_unet_only": "write train_text_encoders: false (the default)",
    "num_repeats": "name the folder N_NAME, as kohya's tools do",
    "optimizer": "the optimizer is AdamW; leave it out",
    "optimizer_type": "the optimizer is AdamW; leave it out",
    "reg_tokens": "name the folder N_NAME, as kohya's tools do",
    "resize": "write fit: buckets, fit: crop or fit: exact",
    "resume_from_checkpoint": "a run continues by itself, unless --no-resume is given; leave it out",
    "sample_every_n_steps": "write samples: {prompts: [...], every: N}",
    "sample_prompts": "write samples: {prompts: [...], every: N}",
    "validation_prompt": "write samples: {prompts: [...], every: N}",
    "save_every_n_steps": "write checkpoint_every; the LoRA is written once, at the end",
    "save_model_as": "a LoRA is always a .safetensors file; write format: kohya, diffusers or both",
    "save_precision": "files are always fp16; leave it out",
    "timestep_scaling_factor": "it is 10, as solvers have it; leave it out",
    "w_max": "write teacher_guidance: [w_min + 1, w_max + 1]; a scale of 1 is no guidance here",
    "w_min": "write teacher_guidance: [w_min + 1, w_max + 1]; a scale of 1 is no guidance here",
    "tensorboard": "write report_to: [tensorboard]",
}
"""Their name -> what to write instead."""


def with_own_names(keys: Mapping[str, Any], *, known: Collection[str]) -> dict[str, Any]:
    """`keys` of a training YAML under this trainer's own names, which `known` lists.

    Raises:
        ValueError: a name of theirs for what does not exist here, one that is nearly right, or one key under
            two names with two values.
    """
    for name in keys:
        if name in REFUSED:
            raise ValueError(f"{name}: {REFUSED[name]}")
        if name not in TAKEN and name not in known:
            near = get_close_matches(name, [*TAKEN, *known], n=1)
            if near and near[0] in TAKEN:
                raise ValueError(f"unknown key {name}; did you mean {near[0]} ({TAKEN[near[0]]} here)?")
    own = {name: value for name, value in keys.items() if name not in TAKEN}
    for name, value in keys.items():
        if name in TAKEN:
            _set(own, TAKEN[name], value, called=name)
    _refuse_other_defaults(keys, own)
    return own


def _refuse_other_defaults(keys: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse what would train otherwise under their names, because a default or a rule is another here."""
    if "network_dim" in keys and "alpha" not in own:
        raise ValueError(
            "network_dim without network_alpha: kohya's scripts then take network_alpha: 1 and this trainer"
            " the rank; write network_alpha"
        )
    of_theirs = "lr_scheduler" in keys or "lr_warmup_steps" in keys
    if of_theirs and own.get("schedule", "constant") == "constant" and own.get("warmup_steps"):
        raise ValueError(
            "lr_scheduler: constant with a warm-up: kohya's and diffusers' scripts leave the warm-up out;"
            " write schedule: constant and warmup_steps to have it, or take it out"
        )


def _set(keys: dict[str, Any], path: str, value: Any, *, called: str) -> None:
    *groups, key = path.split(".")
    for group in groups:
        inner = keys.get(group, {})
        if not isinstance(inner, dict):
            raise ValueError(
                f"{called} is {path} here, but {group} is {inner!r}; write {group}: {{folder: {inner}}}"
            )
        keys[group] = dict(inner)
        keys = keys[group]
    if key in keys and keys[key] != value:
        raise ValueError(
            f"{called} is {path} here, and both are given: {value!r} and {keys[key]!r}; keep one"
        )
    keys[key] = value
