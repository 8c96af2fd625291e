"""Training configurations: one YAML file a run, strict and frozen.

Relative paths in a file are relative to that file; those of a command line are relative to the working
directory. Every field below is read by the trainer; an unknown key is an error that names the nearest known
one. `intaglio_train.key_names` lists the names of kohya's and diffusers' scripts that a YAML may use instead.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from intaglio.validation_errors import Allowed, problems_text
from intaglio_train.buckets import LATENT_SCALE, BucketPlacing, CropPlacing, ExactPlacing, Placing, Size
from intaglio_train.config_values import Positive, Probability, Resolution, Schedule, Suffix, Trackers
from intaglio_train.errors import ConfigError
from intaglio_train.key_names import with_own_names
from intaglio_train.located import LocatedPath, Model

__all__ = [
    "ControlNetConfig",
    "DataConfig",
    "LoraConfig",
    "PriorConfig",
    "SampleConfig",
    "TrainingConfig",
    "config_from_yaml",
    "controlnet_config_from_yaml",
    "lora_config_from_yaml",
]

Name = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"),
    Allowed("at most 64 lower-case letters, digits, _ and -; the first is a letter or a digit"),
]
TRAINED = Path("trained")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Where images and captions come from: exactly one of `folder` and `arrays`.

    `folder` holds one of (looked for in this order)
      - `images.npy` [N,H,W,3] uint8, `captions.json` (N strings or N lists of strings) and, for a
        ControlNet, `controls_<control>.npy` [N,H,W,3] uint8;
      - `metadata.csv` or `metadata.jsonl` with a column of image paths (`image` or `file_name`), of captions
        (`caption` or `text`) and, for a ControlNet, of control images (`control` or `conditioning_image`), as
        Hugging Face's `imagefolder` reads it;
      - images, each with a `.txt` or `.caption` of the same name; control images of the same name in
        `control_<control>/` or `control/`;
      - kohya's folders `N_name/` of such images: each image counts N times, and `name` is the caption of an
        image that has none;
      - one of the above in a folder `train/`, beside the other splits of a Hugging Face data set.
    `arrays` is an `.npz` with `images`, `captions` ([N] or [N,M] strings) and `controls_<control>` or
    `controls`. A caption file or table cell of several lines, and a list of captions, hold alternatives: one
    is drawn each time the image is used. Text files are UTF-8. `intaglio_train.folder_samples` says which
    other files are refused and which are passed over.
    """

    folder: LocatedPath | None = None
    arrays: LocatedPath | None = None
    control: str | None = None
    limit: Positive | None = None
    caption_extension: Suffix | None = None  # none: .txt or .caption
    image_column: str | None = None  # none: image or file_name
    caption_column: str | None = None  # none: caption or text

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.folder is None) == (self.arrays is None):
            raise ValueError("give exactly one of data.folder and data.arrays")
        return self

    @property
    def source(self) -> Path:
        path = self.folder or self.arrays
        assert path is not None  # _one_source
        return path


class SampleConfig(_Strict):
    """Pictures made during training: a grid of all prompts every `every` steps, in `samples/step-N.png`."""

    prompts: tuple[str, ...] = Field(min_length=1)
    negative_prompt: str | None = None
    every: Positive = 500
    steps: Positive = 20
    guidance_scale: float = 5.0
    seed: Annotated[int, Field(ge=0)] = 0


class PriorConfig(_Strict):
    """Class-prior preservation (DreamBooth, arXiv 2208.12242): every batch carries as many images of the
    plain class, weighted.
    """

    data: DataConfig
    weight: Annotated[float, Field(gt=0)] = 1.0


class TrainingConfig(_Strict):
    """What both trainers share."""

    name: Name
    model: Model
    data: DataConfig
    base_name: str | None = None  # what the files call the model; none: its hub id, file or folder
    output: LocatedPath  # none: trained/NAME beside the file, which `make clean` keeps
    resolution: Resolution = 1024  # pixels; a pair is (width, height)
    fit: Literal["buckets", "crop", "exact"] = "buckets"  # of images in files; see `buckets`
    bucket_reso_steps: Positive = 64
    min_bucket_reso: Positive | None = None  # none: half of the resolution's shorter side
    max_bucket_reso: Positive | None = None  # none: twice the resolution's longer side
    bucket_no_upscale: bool = False
    variant: str | None = None
    configurations: LocatedPath | None = None  # of a single-file model; see `single_file`
    device: Literal["auto", "cpu", "cuda"] = "auto"

    steps: Positive
    batch_size: Positive = 1
    gradient_accumulation: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Schedule = "constant"  # diffusers' (`diffusers.optimization`)
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule_cycles: Positive = 1  # of cosine_with_restarts
    schedule_power: Annotated[float, Field(gt=0)] = 1.0  # of polynomial
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None

    min_snr_gamma: Annotated[float, Field(gt=0)] | None = 5.0
    caption_dropout: Probability = 0.1
    noise_offset: Annotated[float, Field(ge=0)] = 0.0

    cache_latents: bool = False
    cache_text: bool = False
    cache_on: Literal["device", "host"] = "device"
    loader_threads: Positive = 4

    log_every: Positive = 10
    checkpoint_every: Positive | None = None  # none: a tenth of the steps, at least 5
    keep_checkpoints: Positive = 2
    samples: SampleConfig | None = None
    report_to: Trackers = ()

    @model_validator(mode="before")
    @classmethod
    def _default_output(cls, keys: Any) -> Any:
        if isinstance(keys, dict) and "output" not in keys and isinstance(keys.get("name"), str):
            return {**keys, "output": TRAINED / keys["name"]}
        return keys

    @model_validator(mode="after")
    def _resolution_fits_latents(self) -> TrainingConfig:
        if any(side < LATENT_SCALE or side % LATENT_SCALE for side in self.size):
            raise ValueError(f"resolution {self.resolution} must be a multiple of {LATENT_SCALE}")
        return self

    @model_validator(mode="after")
    def _no_key_is_left_unread(self) -> TrainingConfig:
        read_only_with: tuple[tuple[str, str, Any], ...] = (
            ("schedule_cycles", "schedule", "cosine_with_restarts"),
            ("schedule_power", "schedule", "polynomial"),
            ("bucket_reso_steps", "fit", "buckets"),
            ("bucket_no_upscale", "fit", "buckets"),
            ("min_bucket_reso", "fit", "buckets"),
            ("max_bucket_reso", "fit", "buckets"),
            ("min_bucket_reso", "bucket_no_upscale", False),
            ("max_bucket_reso", "bucket_no_upscale", False),
        )
        for name, key, value in read_only_with:
            is_set = getattr(self, name) != type(self).model_fields[name].default
            if is_set and getattr(self, key) != value:
                shown = str(value).lower()  # as YAML writes it
                raise ValueError(f"{name} = {getattr(self, name)!r} is read with {key}: {shown} only")
        return self

    @model_validator(mode="after")
    def _buckets_fit_latents(self) -> TrainingConfig:
        step = self.bucket_reso_steps
        for name, side in (
            ("bucket_reso_steps", step),
            ("min_bucket_reso", self.min_bucket_reso),
            ("max_bucket_reso", self.max_bucket_reso),
        ):
            unit = LATENT_SCALE if name == "bucket_reso_steps" else step
            if side is not None and side % unit:
                raise ValueError(f"{name} = {side}: must be a multiple of {unit}")
        smallest, largest = self.bucket_range
        if smallest > largest:
            raise ValueError(f"min_bucket_reso {smallest} must be at most max_bucket_reso {largest}")
        return self

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)

    @property
    def bucket_range(self) -> tuple[int, int]:
        """The shortest and the longest side of a bucket in pixels."""
        step = self.bucket_reso_steps
        smallest = self.min_bucket_reso or max(step, min(self.size) // 2 // step * step)
        return smallest, self.max_bucket_reso or max(step, 2 * max(self.size) // step * step)

    @property
    def placing(self) -> Placing:
        """How images in files are brought to a size that is trained."""
        if self.fit == "exact":
            return ExactPlacing(self.size)
        if self.fit == "crop":
            return CropPlacing(self.size)
        smallest, largest = self.bucket_range
        return BucketPlacing(
            self.size, self.bucket_reso_steps, smallest, largest, upscale=not self.bucket_no_upscale
        )

    @property
    def checkpoint_interval(self) -> int:
        return self.checkpoint_every or max(5, self.steps // 10)


class LoraConfig(TrainingConfig):
    """A low-rank adapter of the UNet and, if asked, of both text encoders."""

    method: ClassVar[str | None] = None  # of drawing, which the file names
    usage_hint: ClassVar[str | None] = None  # how a file of this method is used

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] | None = None  # none: as rank, a scale of 1
    dropout: Probability = 0.0
    targets: tuple[Literal["attention", "feed_forward", "conv"], ...] = Field(
        default=("attention",), min_length=1
    )
    train_text_encoders: bool = False
    text_learning_rate: Annotated[float, Field(gt=0)] | None = None  # none: as learning_rate
    trigger_words: tuple[str, ...] = ()
    format: Literal["kohya", "diffusers", "both"] = "kohya"
    date: datetime.date | None = None  # in the files; none: SOURCE_DATE_EPOCH, or the day of the last step
    prior: PriorConfig | None = None

    @model_validator(mode="after")
    def _trained_text_is_not_cached(self) -> LoraConfig:
        if self.text_learning_rate is not None and not self.train_text_encoders:
            raise ValueError("text_learning_rate needs train_text_encoders: true")
        if self.train_text_encoders and self.cache_text:
            raise ValueError(
                "cache_text keeps the text encoders' first output; it cannot be used with train_text_encoders"
            )
        return self

    @property
    def scale_alpha(self) -> float:
        return float(self.rank) if self.alpha is None else self.alpha


class ControlNetConfig(TrainingConfig):
    """A ControlNet (arXiv 2302.05543) for one kind of control image."""

    init: Literal["unet"] | Model = "unet"  # or a diffusers ControlNet: a folder or a hub id
    conditioning_embedding_out_channels: tuple[Positive, ...] = (16, 32, 96, 256)
    cache_controls: bool = False


_Config = TypeVar("_Config", bound=TrainingConfig)


def lora_config_from_yaml(path: Path, overrides: dict[str, Any] | None = None) -> LoraConfig:
    """Read a LoRA's YAML; `overrides` replace its keys (a path for `data` replaces data.folder). Raises
    `ConfigError`.
    """
    return config_from_yaml(path, LoraConfig, overrides)


def controlnet_config_from_yaml(path: Path, overrides: dict[str, Any] | None = None) -> ControlNetConfig:
    """Read a ControlNet's YAML; `overrides` replace its keys (a path for `data` replaces data.folder). Raises
    `ConfigError`.
    """
    return config_from_yaml(path, ControlNetConfig, overrides)


def config_from_yaml(path: Path, kind: type[_Config], overrides: dict[str, Any] | None) -> _Config:
    """Read a YAML of a trainer's `kind`; see `lora_config_from_yaml`. Raises `ConfigError`."""
    try:
        keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a training YAML"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: must hold keys and values, such as 'steps: 1000'")
    try:
        keys = with_own_names({str(name): value for name, value in keys.items()}, known=kind.model_fields)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    merged = {**keys, **_from_command_line(overrides or {})}
    if isinstance(merged.get("data"), Path):  # another folder, read as the configured one
        kept = keys["data"] if isinstance(keys.get("data"), dict) else {}
        merged["data"] = {key: value for key, value in kept.items() if key != "arrays"} | {
            "folder": merged["data"]
        }
    try:
        return kind.model_validate(merged, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {problems_text(error, kind)}") from error


def _from_command_line(overrides: dict[str, Any]) -> dict[str, Any]:
    """`overrides` with absolute paths: theirs start at the working directory, not at the file."""
    return {key: value.absolute() if isinstance(value, Path) else value for key, value in overrides.items()}
