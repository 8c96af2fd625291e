"""An example of every key: from a table, else from the configurations, else from its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

import intaglio_train.config as training
from intaglio.contract.config import Deployment
from reference.fields import Key, declaring_class, models_in

__all__ = ["deployment_example", "training_example"]

_CONFIGS: Final = Path(__file__).resolve().parents[1] / "configs"
_DEPLOYMENTS: Final = ("sdxl.yaml", "miniature.yaml", "sdxl-seeded.yaml")
_TRAININGS: Final = ("training/night.yaml", "training/mara.yaml", "training/controlnet_canny.yaml")
_MORE: Final[Mapping[tuple[str, str], Any]] = {
    ("Deployment", "base"): [{"hub": "stabilityai/stable-diffusion-xl-base-1.0"}],
    ("Deployment", "loras"): {"character": {"path": "character.safetensors"}},
    ("Deployment", "fuse"): {"character": 0.8},
    ("LoraSource", "path"): "character.safetensors",
    ("LoraSource", "weight"): 0.8,
    ("LoraSource", "method"): "lcm",
    ("Deployment", "method"): "lcm",
    ("Deployment", "profiles"): {"sizes": [[1024, 1024], [832, 1216]]},
    ("Deployment", "target"): "sm89",
    ("Deployment", "runtime"): "tensorrt-rtx",
    ("Deployment", "verify_tolerance"): 0.02,
    ("Deployment", "build"): "/var/lib/intaglio/build",
    ("Deployment", "execution"): {"cuda_graph": True, "gpu": 1},
    ("Deployment", "limits"): {"steps": 50, "images": 2},
    ("Deployment", "server"): {"host": "0.0.0.0", "queue_size": 16},
    ("Deployment", "provenance"): {"source_type": False},
    ("Defaults", "preset"): "standard",
    ("Provenance", "c2pa"): {"certificate": "signer.pem", "private_key": "signer.key"},
    ("ContentCredentials", "certificate"): "signer.pem",
    ("ContentCredentials", "private_key"): "signer.key",
    ("ContentCredentials", "timestamp_url"): "http://timestamp.example.org",
    ("Deployment", "detector_process"): {"idle_seconds": 600},
    ("Deployment", "identity"): {
        "characters": "../characters",
        "detector": "det_10g.onnx",
        "recognition": "w600k_r50.onnx",
        "threshold": 0.4,
    },
    ("Identity", "characters"): "../characters",
    ("Identity", "kind"): "insightface",
    ("Identity", "detector"): "../buffalo_l/det_10g.onnx",
    ("Identity", "recognition"): "../buffalo_l/w600k_r50.onnx",
    ("Identity", "models"): "../buffalo_l",
    ("Identity", "template"): "dlib",
    ("Identity", "mean"): 0,
    ("Identity", "std"): 1,
    ("Identity", "detector_size"): 320,
    ("Identity", "confidence"): 0.7,
    ("Identity", "measure"): "euclidean",
    ("Identity", "threshold"): 0.4,
    ("Identity", "reference"): "mean",
    ("Identity", "smallest_face"): 80,
    ("DetectorSource", "type"): "scribble",
    ("DetectorSource", "folder"): "../weights/annotators",
    ("DetectorSource", "hub"): "lllyasviel/Annotators",
    ("DetectorSource", "revision"): "main",
    ("DetectorSource", "detector"): "hed",
    ("DetectorSource", "mean"): [0.5, 0.5, 0.5],
    ("DetectorSource", "std"): [0.5, 0.5, 0.5],
    ("DetectorSource", "size"): 518,
    ("ControlNetSource", "palette"): "ade20k",
    ("ControlNetSource", "union"): {"pose": "openpose", "segmentation": {"mode": "segment"}},
    ("UnionControl", "mode"): "segment",
    ("UnionControl", "type"): "segmentation",
    ("UnionControl", "palette"): "ade20k",
    ("Source", "revision"): "refs/pr/4",
    ("Profiles", "batch"): 2,
    ("Profiles", "decoder_pixels"): 1048576,
    ("Execution", "threads"): 8,
    ("Execution", "gpu"): 1,
    ("Execution", "embedding_cache"): 256,
    ("Execution", "lora_staging_mib"): 768,
    ("Execution", "resident_controlnets"): 2,
    ("Execution", "overtakes"): 4,
    ("Execution", "slice_steps"): 10,
    ("Limits", "steps"): 50,
    ("Limits", "images"): 2,
    ("Limits", "cost"): 62914560,
    ("Limits", "prompt_bytes"): 2000,
    ("Limits", "controls"): 2,
    ("Limits", "loras"): 2,
    ("Limits", "input_images"): 2,
    ("Limits", "input_bytes"): 8388608,
    ("Limits", "input_pixels"): 4194304,
    ("Server", "host"): "0.0.0.0",
    ("Server", "http_port"): 9000,
    ("Server", "grpc_port"): 9001,
    ("Server", "metrics_port"): 9002,
    ("Server", "queue_size"): 16,
    ("Server", "drain_seconds"): 120,
    ("Server", "workers"): 4,
    ("Server", "gpus"): [0, 1],
    ("Server", "instances"): 2,
    ("Server", "hang_seconds"): 300,
    ("Server", "log_format"): "json",
    ("Server", "log_level"): "warning",
    ("Server", "traces"): "http://collector:4318/v1/traces",
    ("Server", "trace_every"): 100,
    ("TrainingConfig", "output"): "trained/night-2",
    ("TrainingConfig", "variant"): "fp16",
    ("TrainingConfig", "configurations"): "weights/sdxl-base",
    ("TrainingConfig", "gradient_accumulation"): 4,
    ("TrainingConfig", "weight_decay"): 0.0,
    ("TrainingConfig", "max_gradient_norm"): 0.5,
    ("TrainingConfig", "seed"): 7,
    ("TrainingConfig", "ema_decay"): 0.999,
    ("TrainingConfig", "min_snr_gamma"): None,
    ("TrainingConfig", "noise_offset"): 0.05,
    ("TrainingConfig", "loader_threads"): 8,
    ("TrainingConfig", "checkpoint_every"): 100,
    ("TrainingConfig", "keep_checkpoints"): 5,
    ("TrainingConfig", "base_name"): "my-checkpoint",
    ("TrainingConfig", "bucket_reso_steps"): 32,
    ("TrainingConfig", "min_bucket_reso"): 512,
    ("TrainingConfig", "max_bucket_reso"): 1536,
    ("TrainingConfig", "schedule_cycles"): 3,
    ("TrainingConfig", "schedule_power"): 2.0,
    ("TrainingConfig", "report_to"): ["tensorboard"],
    ("LoraConfig", "dropout"): 0.1,
    ("LoraConfig", "date"): "2026-11-29",
    ("LoraConfig", "prior"): {"data": {"folder": "photos-of-people"}, "weight": 1.0},
    ("LcmConfig", "teacher_guidance"): [4.0, 16.0],
    ("LcmConfig", "huber_c"): 0.01,
    ("DataConfig", "arrays"): "night.npz",
    ("DataConfig", "limit"): 100,
    ("DataConfig", "caption_extension"): ".caption",
    ("DataConfig", "image_column"): "file_name",
    ("DataConfig", "caption_column"): "text",
    ("SampleConfig", "negative_prompt"): "blurry",
    ("SampleConfig", "steps"): 30,
    ("SampleConfig", "guidance_scale"): 7.0,
    ("SampleConfig", "seed"): 7,
    ("PriorConfig", "data"): {"folder": "photos-of-people"},
    ("PriorConfig", "weight"): 0.5,
}
"""By class and key. They come before the configurations, whose value may say nothing."""


def deployment_example(key: Key) -> Any:
    """A value for `key` of a deployment; ValueError where none is found."""
    return _example(key, _found(Deployment, _DEPLOYMENTS))


def training_example(key: Key) -> Any:
    """A value for `key` of a training run; ValueError where none is found."""
    lora, controlnet = training.LoraConfig, training.ControlNetConfig
    found = {**_found(controlnet, _TRAININGS[2:]), **_found(lora, _TRAININGS[:2])}
    return _example(key, found)


def _example(key: Key, found: Mapping[tuple[str, str], Any]) -> Any:
    place = (key.model.__name__, key.name)
    if place in _MORE:
        return _MORE[place]
    if place in found:
        return found[place]
    default = None if key.field.is_required() else key.field.get_default(call_default_factory=True)
    if key.field.annotation is bool:
        return not default
    if get_origin(key.field.annotation) is Literal:
        return next(choice for choice in get_args(key.field.annotation) if choice != default)
    if isinstance(default, int | float | str):
        return default
    raise ValueError(f"{key.model.__name__}.{key.name}: give it an example in reference/examples.py")


@cache
def _found(model: type[BaseModel], files: tuple[str, ...]) -> Mapping[tuple[str, str], Any]:
    """The first value of every key in `files`, by the class that declares it and its name."""
    found: dict[tuple[str, str], Any] = {}
    for file in files:
        value = yaml.safe_load((_CONFIGS / file).read_text(encoding="utf-8"))
        for place, one in _values(model, value):
            found.setdefault(place, one)
    return found


def _values(model: type[BaseModel], value: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, one in value.items():
        yield (declaring_class(model, name).__name__, name), one
        for inner in models_in(model.model_fields[name].annotation):
            for member in _members(inner, one):
                yield from _values(inner, member)


def _members(model: type[BaseModel], value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings in `value` that are of `model`: itself, its list's members, or its ids' values."""
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))
    elif isinstance(value, dict) and set(value) <= set(model.model_fields):
        yield value
    elif isinstance(value, dict):
        yield from (one for one in value.values() if isinstance(one, dict))
