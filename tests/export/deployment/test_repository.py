"""model_repository/ is what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from intaglio.contract.models import ENSEMBLE_STEPS, MODELS, ModelSpec
from intaglio_export.deployment.repository import RepositoryOptions, repository_files, write_repository

COMMITTED = Path(__file__).parents[3] / "model_repository"


def test_committed_files_are_the_generated_ones() -> None:
    assert texts_of(COMMITTED) == repository_files(), "run: python -m intaglio_export.deployment.repository"


def texts_of(folder: Path) -> dict[str, str]:
    """Every file but those that Python has compiled, which are no text."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_a_model_that_was_imported_changes_no_text(tmp_path: Path) -> None:
    (tmp_path / "one/__pycache__").mkdir(parents=True)
    (tmp_path / "one/__pycache__/model.pyc").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "one/model.py").write_text("text")
    assert texts_of(tmp_path) == {"one/model.py": "text"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_config_equals_the_table(model: object) -> None:
    text = repository_files(RepositoryOptions(build_key="ab", queue_size=7, workers=3, gpu=3))[
        f"{model.name}/config.pbtxt"
    ]  # type: ignore[attr-defined]
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    for ports, found in ((model.inputs, config.input), (model.outputs, config.output)):  # type: ignore[attr-defined]
        assert [(port.name, port.datatype, port.dims) for port in ports] == [
            (item.name, model_config_pb2.DataType.Name(item.data_type), tuple(item.dims)) for item in found
        ]
    assert [port.optional for port in model.inputs] == [item.optional for item in config.input]  # type: ignore[attr-defined]
    assert "max_batch_size: 0" in text
    if config.platform == "ensemble":
        steps = config.ensemble_scheduling.step
        assert [(step.model_name, dict(step.input_map)) for step in steps] == [
            (step.model, dict(step.input_map)) for step in ENSEMBLE_STEPS
        ]
    else:
        assert config.parameters["build_key"].string_value == "ab"
        longest = config.dynamic_batching.default_queue_policy.max_queue_size
        assert longest == (7 if config.name == "diffuse" else 56)
        group = config.instance_group[0]
        expected = {
            "diffuse": (group.KIND_GPU, 1, [3]),
            "annotate": (group.KIND_CPU, 1, []),
            "identity": (group.KIND_CPU, 1, []),
            "sdxl_stream": (group.KIND_CPU, 1, []),
        }
        found = (group.kind, group.count, list(group.gpus))
        assert found == expected.get(config.name, (group.KIND_CPU, 3, []))
        assert config.model_transaction_policy.decoupled == (config.name == "sdxl_stream")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_text_of_the_table_is_a_parameter(model: ModelSpec) -> None:
    """Triton's ModelConfig has no other place for them."""
    assert not {"doc", "description"} & set(model_config_pb2.ModelInput.DESCRIPTOR.fields_by_name)
    text = repository_files()[f"{model.name}/config.pbtxt"]
    parameters = text_format.Parse(text, model_config_pb2.ModelConfig()).parameters
    assert parameters["doc"].string_value == model.doc != ""
    for kind, ports in (("input", model.inputs), ("output", model.outputs)):
        for port in ports:
            assert port.doc, f"{model.name}.{port.name} has no text"
            assert parameters[f"doc.{kind}.{port.name}"].string_value == port.description
    assert len([name for name in parameters if name.startswith("doc")]) == (
        1 + len(model.inputs) + len(model.outputs)
    )


def test_model_files_are_thin() -> None:
    for name, text in repository_files().items():
        if name.endswith("model.py"):
            assert len(text.splitlines()) <= 20
            compile(text, name, "exec")


def test_writing_removes_models_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "old_model/1").mkdir(parents=True)
    write_repository(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {model.name for model in MODELS}


@pytest.mark.parametrize(("option", "absent"), [("detectors", "annotate"), ("identity", "identity")])
def test_a_model_that_the_deployment_does_not_ask_for_is_not_there(option: str, absent: str) -> None:
    files = repository_files(RepositoryOptions(**{option: False}))  # type: ignore[arg-type]
    assert {name.partition("/")[0] for name in files} == {model.name for model in MODELS} - {absent}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RepositoryOptions(gpus="0,1"), {"gpus": "0,1"}),
        (RepositoryOptions(gpus="all"), {"gpus": "all"}),
        (RepositoryOptions(instances=2), {"instances": "2"}),
        (RepositoryOptions(instances=2, hang_seconds=30), {"instances": "2", "hang_seconds": "30"}),
    ],
)
def test_one_process_has_the_queue_of_several_instances(
    options: RepositoryOptions, expected: dict[str, str]
) -> None:
    """It starts them itself, so Triton gives it no card."""
    text = repository_files(options)["diffuse/config.pbtxt"]
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (group.KIND_CPU, 1, [])
    found = {name: config.parameters[name].string_value for name in expected}
    assert found == expected
    assert ("hang_seconds" in config.parameters) == ("hang_seconds" in expected)
    assert "gpus" not in repository_files(options)["preprocess/config.pbtxt"]
