"""Checkpoints of transformers at small size, with seeded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.checkpoint import CheckpointDetector
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.palettes import class_colours, palette_of

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def segmenter(folder: Path, labels: int) -> Any:
    torch.manual_seed(1)
    config = transformers.SegformerConfig(
        num_labels=labels,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    model.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return model


def depth_model(folder: Path, **values: Any) -> Any:
    torch.manual_seed(1)
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_features=stages,
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        patch_size=14,
        **values,
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    for parameter in model.head.parameters():  # the sigmoid of metric depth would hide such small values
        parameter.data.mul_(30)
    model.save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return model


def source(folder: Path, made: str) -> DetectorSource:
    return DetectorSource(kind="transformers", folder=folder, type=made)


@pytest.mark.parametrize(("labels", "palette"), [(150, "ade20k"), (19, "cityscapes")])
def test_classes_have_the_colours_of_their_data_set(tmp_path: Path, labels: int, palette: str) -> None:
    model = segmenter(tmp_path, labels)
    found = CheckpointDetector(source(tmp_path, "segmentation"))(PHOTO, name="a")
    processor = transformers.SegformerImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        outputs = model(**processor(images=PHOTO, return_tensors="pt"))
    (classes,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(48, 64)])
    np.testing.assert_array_equal(found.map, class_colours(labels)[classes.numpy()])
    assert found.classes
    assert len(np.unique(classes)) > 1
    assert palette_of(found.map) == palette


@pytest.mark.parametrize("metric", [False, True], ids=["relative", "metric"])
def test_what_is_near_is_bright(tmp_path: Path, metric: bool) -> None:
    options = {"depth_estimation_type": "metric", "max_depth": 20} if metric else {}
    model = depth_model(tmp_path, **options)
    found = CheckpointDetector(source(tmp_path, "depth"))(PHOTO, name="a").map
    assert found.shape == (48, 64, 3)
    assert (found[..., 0] == found[..., 2]).all()
    processor = transformers.DPTImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        depth = model(**processor(images=PHOTO, return_tensors="pt")).predicted_depth[0].numpy()
    grey = np.asarray(Image.fromarray(found[..., 0]).resize(depth.shape[::-1], Image.Resampling.BILINEAR))
    correlation = np.corrcoef(grey.ravel(), depth.ravel())[0, 1]
    assert correlation < -0.9 if metric else correlation > 0.9


def test_no_array_holds_every_class_of_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of 12 megapixels would take 7 GB."""
    segmenter(tmp_path, 150)
    detector = CheckpointDetector(source(tmp_path, "segmentation"))
    sizes = []
    interpolate = torch.nn.functional.interpolate

    def counted(*given: Any, **named: Any) -> Any:
        made = interpolate(*given, **named)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(torch.nn.functional, "interpolate", counted)
    detector(PHOTO.resize((640, 480)), name="a")
    assert max(sizes) == 640 * 480


def test_a_narrow_strip_and_a_depth_of_nothing_are_refused(tmp_path: Path) -> None:
    depth_model(tmp_path)
    detector = CheckpointDetector(source(tmp_path, "depth"))
    with pytest.raises(InvalidRequest, match=r"^a: 900x100; allowed: a longer side of at most 8 times"):
        detector(PHOTO.resize((900, 100)), name="a")
    for parameter in detector._model.head.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(ConfigError, match="numbers that are not finite"):
        detector(PHOTO, name="a")


def test_other_classes_and_other_checkpoints_are_refused(tmp_path: Path) -> None:
    segmenter(tmp_path / "seven", 7)
    with pytest.raises(ConfigError, match=r"a segmentation of 7 classes; allowed: 150 \(ADE20K\) or 19"):
        CheckpointDetector(source(tmp_path / "seven", "segmentation"))
    config = json.loads((tmp_path / "seven/config.json").read_text())
    config["architectures"] = ["SegformerForImageClassification"]
    (tmp_path / "seven/config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="holds SegformerForImageClassification; allowed: a checkpoint"):
        CheckpointDetector(source(tmp_path / "seven", "segmentation"))
    with pytest.raises(ConfigError, match=r"config\.json: no such file; put a checkpoint of transformers"):
        CheckpointDetector(source(tmp_path, "segmentation"))
    (tmp_path / "seven/model.safetensors").write_bytes(b"no weights")
    (tmp_path / "seven/config.json").write_text(
        json.dumps({**config, "architectures": ["XForSemanticSegmentation"]})
    )
    with pytest.raises(ConfigError, match=r"seven: does not load: .*it must be a checkpoint of transformers"):
        CheckpointDetector(source(tmp_path / "seven", "segmentation"))
