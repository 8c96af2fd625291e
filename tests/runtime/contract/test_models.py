"""The table of Triton models."""

from __future__ import annotations

from importlib import import_module

import pytest

from intaglio.contract.models import ENSEMBLE_STEPS, MODELS, SDXL, model_spec
from intaglio.sampling.solvers import SOLVERS


def test_ensemble_feeds_every_required_input() -> None:
    available = {port.name: port for port in SDXL.inputs}
    for step in ENSEMBLE_STEPS:
        stage = model_spec(step.model)
        for port in stage.inputs:
            if not port.optional:
                assert port.name in step.input_map
        for name, source in step.input_map.items():
            assert (available[source].datatype, len(available[source].dims)) == (
                stage.input(name).datatype,
                len(stage.input(name).dims),
            )
        available |= {target: stage.output(name) for name, target in step.output_map.items()}
    assert {port.name for port in SDXL.outputs} <= set(available)
    assert model_spec("preprocess").inputs == SDXL.inputs


def test_choices_and_names() -> None:
    assert SDXL.input("scheduler").choices == SOLVERS
    for model in MODELS:
        assert len({port.name for port in model.inputs}) == len(model.inputs)
    with pytest.raises(KeyError):
        SDXL.input("strength")
    with pytest.raises(KeyError, match="models: sdxl"):
        model_spec("flux")


def test_entries_are_classes_of_the_model() -> None:
    for model in MODELS:
        if model.entry is not None:
            module, _, name = model.entry.partition(":")
            assert getattr(import_module(module), name).spec is model
    assert [model.name for model in MODELS if model.public] == ["sdxl", "sdxl_stream", "annotate", "identity"]
