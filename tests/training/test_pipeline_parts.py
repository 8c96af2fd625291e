"""A base loads in every layout that the build reads; one whose weights do not fit is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from intaglio_train import ConfigError
from intaglio_train.base_model import BaseModel, ModelSource, load_base_model
from intaglio_train.text_chunks import chunk_texts

from .conftest import whole_tokenizers

CAPTIONS = ["a person waving, on a BEACH! don't", "naïve café 12345", ""]


def load(folder: Path, **options: Any) -> BaseModel:
    return load_base_model(
        ModelSource(str(folder), **options), device=torch.device("cpu"), dtype=torch.float16
    )


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be changed."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def rename_weights(folder: Path, old: str, new: str) -> None:
    path = folder / "text_encoder/model.safetensors"
    tensors = {name.replace(old, new): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_text_encoder_without_the_level_text_model_has_the_files_weights(model: Path, copy: Path) -> None:
    """transformers 5.6 writes files without it."""
    rename_weights(copy, "text_model.", "")
    expected = load(model).text_encoders[0].state_dict()
    found = load(copy).text_encoders[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_weights_that_the_network_lacks_are_refused(copy: Path) -> None:
    rename_weights(copy, "final_layer_norm", "last_norm")
    with pytest.raises(ConfigError, match=r"text_encoder: the weights lack \S*final_layer_norm\S* and 1 "):
        load(copy)


def test_the_variant_is_taken_where_a_part_has_it(model: Path, copy: Path) -> None:
    plain = copy / "unet/diffusion_pytorch_model.safetensors"
    plain.rename(plain.with_suffix(".fp16.safetensors"))
    expected = load(model).unet.state_dict()
    found = load(copy, variant="fp16").unet.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_tokenizers_in_one_file_give_the_same_tokens(model: Path, copy: Path) -> None:
    whole_tokenizers(copy)
    expected = chunk_texts(load(model).tokenizers, CAPTIONS)
    base = load(copy)
    found = chunk_texts(base.tokenizers, CAPTIONS)
    assert torch.equal(found.tokens, expected.tokens)
    assert base.pipeline().tokenizer is base.tokenizers[0], "samples are drawn with it"
