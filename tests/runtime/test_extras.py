"""A module that is not installed is answered with the extra that brings it, as the metadata says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from intaglio.errors import MissingExtra
from intaglio.extras import MODULES, Extras, missing_module, missing_modules

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def extras() -> Extras:
    """As the metadata of an installation says: `Requires-Dist: torch>=2.6; extra == "torch"`."""
    lines = list(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for requirement in requirements:
            name, _, marker = requirement.partition(";")
            also = f"({marker.strip()}) and " if marker else ""
            lines.append(f'{name.strip()}; {also}extra == "{extra}"')
    return Extras.of(lines)


@pytest.mark.parametrize(
    ("module", "preferred", "extra"),
    [
        ("psutil", "serve", "serve"),
        ("psutil", "export", "export"),
        ("tritonclient.grpc", "client", "client"),
        ("grpc", "client", "client"),
        ("google.protobuf", "export", "export"),
        ("torch", "export", "export"),
        ("torch", "train", "train"),
        ("torch", "serve", "torch"),
        ("cv2", "serve", "serve"),
        ("tensorrt_rtx", "serve", "tensorrt"),
        ("cuda.bindings", "serve", "tensorrt"),
        ("tensorboard", "export", "train"),
        ("ffmpeg", "client", "video"),
        ("imageio_ffmpeg", "client", "video"),
        ("ijson", "train", "data"),
        ("huggingface_hub", "export", "export"),
        ("hypothesis", "serve", "dev"),
        ("nowhere", "serve", None),
        ("pydantic", "serve", None),
    ],
)
def test_an_extra_is_found_by_module(extras: Extras, module: str, preferred: str, extra: str | None) -> None:
    assert extras.extra_of(module, preferred=preferred) == extra


def test_extras_of_developers_come_last() -> None:
    """The metadata of a wheel lists under an extra also what the extras that it includes need."""
    named = Extras.of(
        [f'ffmpeg-python; extra == "{extra}"' for extra in ("audit", "dev", "fuzz", "ship", "video")]
    )
    assert named.extra_of("ffmpeg", preferred="client") == "video"


def test_what_the_demo_imports_comes_with_its_extra(extras: Extras) -> None:
    for extra, modules in MODULES.items():
        for module in modules:
            assert extras.extra_of(module, preferred=extra) == extra, module


def raised(code: str, package: str, module: str) -> ModuleNotFoundError:
    """The error of `code` that runs in a module of `package`."""
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(compile(code, "example.py", "exec"), {"__name__": f"{package}.example"})
    assert caught.value.name == module
    return caught.value


def test_the_importing_package_decides_between_extras(extras: Extras) -> None:
    code = "raise ModuleNotFoundError(name='psutil')"
    for package, extra in (("intaglio", "serve"), ("intaglio_export", "export")):
        told = missing_module(raised(code, package, "psutil"), extras)
        assert isinstance(told, MissingExtra)
        assert told.extra == extra


def test_a_module_of_ours_is_a_defect_and_a_base_dependency_needs_no_extra(extras: Extras) -> None:
    ours = raised("import intaglio.no_such_module", "intaglio", "intaglio.no_such_module")
    assert missing_module(ours, extras) is None
    told = missing_module(raised("raise ModuleNotFoundError(name='yaml')", "intaglio", "yaml"), extras)
    assert str(told) == "yaml is not installed; run: pip install pyyaml"


def test_without_metadata_the_package_names_an_extra() -> None:
    told = missing_module(raised("raise ModuleNotFoundError(name='x')", "intaglio_client", "x"), Extras())
    assert str(told) == "x is not installed; run: pip install 'intaglio[client]'"


def test_modules_that_are_installed_are_not_missing() -> None:
    assert missing_modules("client") == []
