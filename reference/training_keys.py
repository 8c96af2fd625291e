"""Texts of the keys of a training run.

A string under a field of the model is used instead of a text here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["COMPUTED_DEFAULTS", "TEXTS"]

COMPUTED_DEFAULTS: Final[Mapping[tuple[str, str], str]] = {
    ("TrainingConfig", "output"): "`trained/NAME`",
    ("TrainingConfig", "checkpoint_every"): "a tenth of the steps, at least 5",
    ("LoraConfig", "alpha"): "`rank`",
    ("LoraConfig", "text_learning_rate"): "`learning_rate`",
}
"""Defaults that follow from other keys."""

TEXTS: Final[Mapping[tuple[str, str], str]] = {
    ("TrainingConfig", "name"): "name of the run and of the files that it writes",
    ("TrainingConfig", "model"): "the base model: a folder in the layout of diffusers, a single "
    "`.safetensors` file, or a hub id",
    ("TrainingConfig", "data"): "the images and captions to train on",
    ("TrainingConfig", "output"): "folder for the results, checkpoints and samples",
    ("TrainingConfig", "base_name"): "what the written files call the base model; without it its hub id, "
    "file or folder",
    ("TrainingConfig", "resolution"): "pixels of the training images: one number for a square, or "
    "[width, height]; each a multiple of 8",
    ("TrainingConfig", "fit"): "how images get a size that is trained: `buckets` keeps their shape, `crop` "
    "cuts them to `resolution`, `exact` refuses other sizes",
    ("TrainingConfig", "bucket_reso_steps"): "pixels between the sizes of buckets, a multiple of 8",
    ("TrainingConfig", "min_bucket_reso"): "shortest side of a bucket in pixels; without it half of the "
    "shorter side of `resolution`",
    ("TrainingConfig", "max_bucket_reso"): "longest side of a bucket in pixels; without it twice the longer "
    "side of `resolution`",
    ("TrainingConfig", "bucket_no_upscale"): "whether images that are smaller than a bucket keep their size",
    ("TrainingConfig", "variant"): "variant of the base model's weight files, as in diffusers",
    ("TrainingConfig", "configurations"): "diffusers folder with the configurations and tokenizers of a "
    "single-file `model`",
    ("TrainingConfig", "device"): "where to train; `auto` takes the card if there is one",
    ("TrainingConfig", "steps"): "optimizer steps of the whole run",
    ("TrainingConfig", "batch_size"): "images of one pass",
    ("TrainingConfig", "gradient_accumulation"): "passes of one optimizer step: the effective batch is "
    "`batch_size` times this",
    ("TrainingConfig", "learning_rate"): "learning rate after the warm-up",
    ("TrainingConfig", "schedule"): "how the learning rate changes after the warm-up; `cosine` falls to 0",
    ("TrainingConfig", "schedule_cycles"): "number of restarts of the schedule `cosine_with_restarts`",
    ("TrainingConfig", "schedule_power"): "exponent of the schedule `polynomial`",
    ("TrainingConfig", "warmup_steps"): "steps in which the learning rate rises from 0",
    ("TrainingConfig", "weight_decay"): "weight decay of AdamW",
    ("TrainingConfig", "max_gradient_norm"): "gradients with a larger norm are scaled down to it; `null` "
    "scales none",
    ("TrainingConfig", "seed"): "start of all random numbers: a run with the same seed repeats itself",
    ("TrainingConfig", "mixed_precision"): "precision of the passes; `bf16` needs half of the memory and a "
    "card or CPU that computes it",
    ("TrainingConfig", "gradient_checkpointing"): "computes activations a second time instead of keeping "
    "them: slower, with much less memory",
    ("TrainingConfig", "ema_decay"): "decay of a moving average of the weights, which is saved instead of "
    "the last weights; without it there is none",
    ("TrainingConfig", "min_snr_gamma"): "limit of the loss weight by signal-to-noise ratio (Min-SNR, arXiv "
    "2303.09556); `null` weights all steps alike",
    ("TrainingConfig", "caption_dropout"): "share of the images that are trained without their caption, "
    "which guidance needs",
    (
        "TrainingConfig",
        "noise_offset",
    ): "noise that is added to whole channels, for darker and brighter images",
    ("TrainingConfig", "cache_latents"): "whether the VAE encodes each image once, before the first step",
    ("TrainingConfig", "cache_text"): "whether the text encoders encode each caption once, before the first "
    "step",
    ("TrainingConfig", "cache_on"): "where cached values lie: `device` is faster, `host` leaves the card's "
    "memory free",
    ("TrainingConfig", "loader_threads"): "threads that check the images before the first step",
    ("TrainingConfig", "log_every"): "steps between two lines of the log",
    (
        "TrainingConfig",
        "checkpoint_every",
    ): "steps between two checkpoints, from which a stopped run continues",
    ("TrainingConfig", "keep_checkpoints"): "newest checkpoints that are kept",
    ("TrainingConfig", "samples"): "pictures that are made during training",
    ("TrainingConfig", "report_to"): "trackers that get the figures of the run",
    ("LoraConfig", "rank"): "rank of the LoRA: a higher one learns more and makes a larger file",
    ("LoraConfig", "alpha"): "scale of the LoRA is `alpha` / `rank`",
    ("LoraConfig", "dropout"): "share of the LoRA's inputs that are dropped in a step",
    ("LoraConfig", "targets"): "layers of the UNet that the LoRA changes",
    ("LoraConfig", "train_text_encoders"): "whether the LoRA changes the attention of both text encoders too",
    ("LoraConfig", "text_learning_rate"): "learning rate of the text encoders",
    ("LoraConfig", "trigger_words"): "words that stand for what is trained; they are written into the file",
    ("LoraConfig", "format"): "layout of the file that is written: `kohya` is for ComfyUI, AUTOMATIC1111 and "
    "kohya's tools",
    (
        "LoraConfig",
        "date",
    ): "date in the written file; without it that of SOURCE_DATE_EPOCH, or of the last step",
    ("LoraConfig", "prior"): "images of the plain class, which keep the base model from forgetting it",
    ("LcmConfig", "teacher_steps"): "DDIM steps of the teacher from noise to picture; each lesson is one "
    "of them",
    ("LcmConfig", "teacher_guidance"): "guidance of the teacher: one scale, or [smallest, largest], "
    "from which each image draws one",
    ("LcmConfig", "huber_c"): "differences below it count squared, and larger ones by their size",
    ("ControlNetConfig", "init"): "what the ControlNet starts from: `unet` is the base model, else a "
    "ControlNet's folder or hub id",
    ("ControlNetConfig", "conditioning_embedding_out_channels"): "channels of the layers that read the "
    "control image",
    (
        "ControlNetConfig",
        "cache_controls",
    ): "whether each control image is read and prepared once, before the first step",
    ("DataConfig", "folder"): "folder of images and captions; give either this or `arrays`",
    ("DataConfig", "arrays"): "`.npz` file of images and captions; give either this or `folder`",
    ("DataConfig", "control"): "name of the control images for a ControlNet: those in `control_NAME/` or in "
    "`control/`",
    ("DataConfig", "limit"): "only the first images, as many as this says; without it all",
    ("DataConfig", "caption_extension"): "extension of the caption files; without it `.txt` or `.caption`",
    ("DataConfig", "image_column"): "column of the image paths; without it `image` or `file_name`",
    ("DataConfig", "caption_column"): "column of the captions; without it `caption` or `text`",
    ("SampleConfig", "prompts"): "one picture is made for each prompt",
    ("SampleConfig", "negative_prompt"): "what the pictures shall avoid",
    ("SampleConfig", "every"): "steps between two grids of pictures, `samples/step-N.png` in `output`",
    ("SampleConfig", "steps"): "solver steps of a picture",
    ("SampleConfig", "guidance_scale"): "guidance of a picture",
    ("SampleConfig", "seed"): "seed of the pictures: the same in every grid",
    ("PriorConfig", "data"): "images of the plain class, described as `data` of the run",
    ("PriorConfig", "weight"): "weight of their loss",
}
"""By class and key."""
