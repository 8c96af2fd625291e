"""Which extra of the distribution brings a module. The distribution's own metadata says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from types import TracebackType
from typing import Final, Self

from intaglio.errors import IntaglioError, MissingExtra

__all__ = ["DISTRIBUTIONS", "MODULES", "Extras", "is_installed", "missing_module", "missing_modules"]

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "client": ("tritonclient", "grpc", "google.protobuf"),
    "serve": ("onnxruntime", "psutil", "cv2", "tokenizers"),
    "export": ("torch", "diffusers", "transformers", "onnx", "safetensors"),
}
"""Modules that the demo imports, by the extra that brings them."""
DISTRIBUTIONS: Final[Mapping[str, str]] = {
    "PIL": "pillow",
    "cuda": "cuda-python",
    "cv2": "opencv-python-headless",
    "ffmpeg": "ffmpeg-python",
    "google": "protobuf",
    "grpc": "grpcio",
    "pytriton": "nvidia-pytriton",
    "tensorrt_rtx": "tensorrt-rtx-cu12",
    "yaml": "pyyaml",
}
"""Distributions whose name differs from their module's."""
_BROUGHT_BY: Final[Mapping[str, str]] = {"grpcio": "tritonclient", "huggingface-hub": "transformers"}
"""Distributions that the metadata does not name, and the named one that needs them."""
_OWN_EXTRAS: Final[Mapping[str, str]] = {
    "intaglio": "serve",
    "intaglio_client": "client",
    "intaglio_export": "export",
    "intaglio_train": "train",
}
"""The extra for what a package of ours does."""
_NAME: Final = re.compile(r"^([\w.-]+)(?:\[([^\]]*)\])?")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_OF_DEVELOPERS: Final = frozenset({"audit", "dev", "fuzz", "ship"})


@dataclass(frozen=True)
class Extras:
    """The extras of the distribution and what each of them needs."""

    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Extra -> names of distributions, those of the extras that it includes among them."""
    direct: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Extra -> names of distributions that it names itself."""

    @classmethod
    def installed(cls) -> Self:
        """The extras of the installed distribution; none where it has no metadata."""
        try:
            return cls.of(requires("intaglio") or ())
        except PackageNotFoundError:
            return cls()

    @classmethod
    def of(cls, requirements: Iterable[str]) -> Self:
        """Read the lines `Requires-Dist`, such as `torch>=2.6; extra == "torch"`."""
        direct: dict[str, set[str]] = {}
        included: dict[str, set[str]] = {}
        for line in requirements:
            named, marked = _NAME.match(line), _EXTRA.search(line)
            if named is None or marked is None:
                continue
            extra, name = marked[1], _normalised(named[1])
            if name == "intaglio":
                included.setdefault(extra, set()).update(re.split(r"\s*,\s*", named[2] or ""))
            else:
                direct.setdefault(extra, set()).add(name)
        names = {*direct, *included}
        return cls(
            needs={extra: frozenset(_closure(extra, direct, included)) for extra in names},
            direct={extra: frozenset(found) for extra, found in direct.items()},
        )

    def extra_of(self, module: str, *, preferred: str) -> str | None:
        """The extra that brings `module`: `preferred` where it does, else one that names it itself."""
        name = _distribution_of(module)
        if name in self.needs.get(preferred, ()):
            return preferred
        found = [extra for extra, names in self.direct.items() if name in names]
        found.sort(key=lambda extra: extra in _OF_DEVELOPERS)
        return found[0] if found else None


def missing_module(error: ModuleNotFoundError, extras: Extras) -> IntaglioError | None:
    """What to install for the module that `error` misses; None where it is a module of ours, which is a
    defect.
    """
    module = error.name or str(error)
    if module.partition(".")[0] in _OWN_EXTRAS:
        return None
    preferred = _OWN_EXTRAS[_importer(error.__traceback__)]
    extra = extras.extra_of(module, preferred=preferred)
    if extra is None and extras.needs:
        return IntaglioError(f"{module} is not installed; run: pip install {_distribution_of(module)}")
    return MissingExtra(module, extra=extra or preferred)


def _importer(trace: TracebackType | None) -> str:
    """The package of ours whose module was the last to import something."""
    package = "intaglio"
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name in _OWN_EXTRAS:
            package = name
        trace = trace.tb_next
    return package


def missing_modules(extra: str) -> list[str]:
    """Modules of `extra` that the demo needs and that are not installed; nothing is imported."""
    return [module for module in MODULES[extra] if not is_installed(module)]


def is_installed(module: str) -> bool:
    """Whether `module` can be found; only its parents are imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _closure(
    extra: str, direct: Mapping[str, Iterable[str]], included: Mapping[str, Iterable[str]]
) -> set[str]:
    found = set(direct.get(extra, ()))
    for other in included.get(extra, ()):
        found |= _closure(other, direct, included)
    return found


def _distribution_of(module: str) -> str:
    first = module.partition(".")[0]
    name = _normalised(DISTRIBUTIONS.get(first, first))
    return _BROUGHT_BY.get(name, name)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
