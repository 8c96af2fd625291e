"""The files that the distribution holds beside its code: example configurations, poses and tokenizers.

An installed wheel has them in `intaglio/data/`. A checkout keeps them where they are edited.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

__all__ = ["data_path"]

_PACKAGE: Final = Path(__file__).parent
_CHECKOUT: Final = _PACKAGE.parents[1]


def data_path(name: str) -> Path:
    """The file or folder that a wheel has as `intaglio/data/NAME`, such as `configs` or
    `tokenizers/tokenizer`.

    In a checkout, `pyproject.toml` says which folder of the repository that is.
    """
    installed = _PACKAGE / "data"
    if installed.is_dir():
        return installed / name
    project = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    sources: dict[str, str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    wanted = Path("intaglio/data", name)
    for source, target in sources.items():
        if wanted.is_relative_to(target) and target.startswith("intaglio/data/"):
            return _CHECKOUT / source / wanted.relative_to(target)
    raise FileNotFoundError(f"intaglio/data/{name}: the distribution has no such file")
