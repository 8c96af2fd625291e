"""Every key of the YAML files is in the tables, and its example is one that the model takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import TypeAdapter

from intaglio.contract.config import Deployment, load_deployment
from intaglio_train.config import ControlNetConfig, LoraConfig, TrainingConfig
from intaglio_train.lcm_config import LcmConfig
from reference.configuration import deployment_sections, training_sections
from reference.examples import deployment_example, training_example
from reference.fields import Key, keys_of
from reference.training_keys import TEXTS

from ..pages import blocks

Example = Callable[[Key], Any]
KEYS: list[tuple[Key, Example]] = [
    *((key, deployment_example) for _, keys in deployment_sections() for key in keys),
    *((key, training_example) for _, keys in training_sections() for key in keys),
]


@pytest.mark.parametrize(
    ("key", "example"), KEYS, ids=[f"{key.model.__name__}.{key.name}" for key, _ in KEYS]
)
def test_the_model_takes_the_example(key: Key, example: Example) -> None:
    value: Any = example(key)
    if key.name == "base" and isinstance(value, dict):
        value = [value]
    kind: Any = key.field.annotation
    if key.field.metadata:
        kind = Annotated[kind, *key.field.metadata]
    TypeAdapter(kind).validate_python(value)


def test_no_key_is_left_out() -> None:
    (_, shown), *_ = deployment_sections()
    assert {key.name for key in shown} | {"name", "folder"} == set(Deployment.model_fields)
    (_, shared), (_, lora), (_, lcm), (_, controlnet), *_ = training_sections()
    names = [{key.name for key in keys} for keys in (shared, lora, controlnet, lcm)]
    assert names[0] == set(TrainingConfig.model_fields)
    assert names[0] | names[1] == set(LoraConfig.model_fields)
    assert names[0] | names[2] == set(ControlNetConfig.model_fields)
    assert names[0] | names[1] | names[3] == set(LcmConfig.model_fields)


def test_no_text_is_for_a_key_that_is_gone() -> None:
    known = {(key.model.__name__, key.name) for _, keys in training_sections() for key in keys}
    assert set(TEXTS) <= known


def test_the_short_deployment_of_the_page_is_whole(tmp_path: Path) -> None:
    ((_, text),) = (block for block in blocks("docs/configuration.md") if block[0] == "yaml")
    (tmp_path / "short.yaml").write_text(text)
    assert load_deployment(tmp_path / "short.yaml").profiles.sizes == ((1024, 1024),)
    assert set(yaml.safe_load(text)) == {key.name for key in keys_of(Deployment) if key.field.is_required()}
