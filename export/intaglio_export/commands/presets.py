"""`intaglio presets list|show`: what requests to a deployment may name instead of stating it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intaglio.builds.published_presets import PublishedPresets
from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.presets import KINDS, Presets, load_presets
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.validation_errors import nearest

__all__ = ["app"]

app = typer.Typer(
    name="presets",
    no_args_is_help=True,
    add_completion=False,
    help="Quality presets, styles, negative prompts and scenes.",
)

Config = Annotated[Path, typer.Option(help="Deployment whose presets are shown.")]
_DEFAULT: Final = Path("configs/miniature.yaml")
_PARTS: Final = {part: name for name, part in KINDS.items()}
"""Part of the file -> input of a request."""


@app.command("list")
def list_(*, config: Config = _DEFAULT, json: Json = False, quiet: Quiet = False) -> None:
    """List the presets, and whether the deployment's build serves them as they are.

    With --quiet only the ids are printed, one a line, each after the input that takes it.
    """
    path, deployment = _file_of(config)
    presets = load_presets(path)
    data = _data(presets)
    rows = []
    for part, entries in data.items():
        rows += [(_PARTS[part], one, _shown(values)) for one, values in entries.items()]
    served = PublishedPresets(deployment.build_folder).current() == presets
    data["served"] = served
    printed = Output(json=json, quiet=quiet)
    if not served:
        printed.note(f"the build does not serve these; run intaglio build {config}", style="yellow")
    brief = "\n".join(f"{name} {one}" for name, one, _ in rows)
    printed.result(table_of(rows, header=("input", "id", "what it is")), data=data, brief=brief)


@app.command()
def show(
    preset: Annotated[str, typer.Argument(help="Id.")],
    *,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print everything that has this id: a quality preset, a style, a negative prompt, a scene.

    With --quiet only the inputs of a request that take the id are printed, one a line.
    """
    path, _ = _file_of(config)
    data = _data(load_presets(path))
    found = {part: entries[preset] for part, entries in data.items() if preset in entries}
    if not found:
        known = sorted({one for entries in data.values() for one in entries})
        problem = f"{preset!r} is unknown{nearest(preset, known)}"
        raise InvalidRequest("id", problem, allowed=", ".join(known) or "none yet")
    rows = []
    for part, values in found.items():
        named = values if isinstance(values, dict) else {"text": values}
        rows += [(_PARTS[part], name, _shown(value)) for name, value in named.items()]
    brief = "\n".join(_PARTS[part] for part in found)
    Output(json=json, quiet=quiet).result(table_of(rows), data={"id": preset, **found}, brief=brief)


def _file_of(config: Path) -> tuple[Path, Deployment]:
    if config == _DEFAULT and not config.is_file():
        raise ConfigError(f"{config}: no such file; name your deployment's YAML file with --config FILE")
    deployment = load_deployment(config)
    if deployment.presets is None:
        raise ConfigError(f"{config}: has no presets; add presets: presets.yaml")
    return deployment.presets, deployment


def _data(presets: Presets) -> dict[str, Any]:
    """The presets as the file has them."""
    data: dict[str, Any] = presets.model_dump(mode="json", exclude_none=True)
    for values in data["quality"].values():
        if not values["figures"]:
            del values["figures"]
    return data


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
