"""`intaglio loras add|remove|list|show|check|serve`: the registry of LoRAs that a deployment names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.progress import track

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import KINDS, LoraEntry, LoraRegistry, load_registry, write_registry
from intaglio.contract.methods import METHOD_NAMES
from intaglio.errors import ConfigError, IntaglioError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.loras.sets import ServedLora
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.loras.versions import shown_version
from intaglio.validation_errors import problems_text
from intaglio_export.commands.lora_versions import (
    published_loras,
    serve_file,
    serve_version,
    version_values,
    versions_text,
)
from intaglio_export.weights.registry import CheckedLora, base_layers, check_entry, described, lora_path

__all__ = ["app"]

app = typer.Typer(name="loras", no_args_is_help=True, add_completion=False, help="The registry of LoRAs.")

Config = Annotated[Path, typer.Option(help="Deployment whose registry and base are used.")]
_DEFAULT = Path("configs/miniature.yaml")
_METHOD = "intaglio.method"
"""Metadata of a LoRA's file; `intaglio train lcm` writes it."""


@app.command()
def add(  # noqa: PLR0913  (one option a field)
    source: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, or the id of a LoRA in the registry whose file changed.",
            show_default=False,
        ),
    ],
    *,
    config: Config = _DEFAULT,
    name: Annotated[
        str | None, typer.Option("--id", help="Id in the registry; by default the file's name.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help=", ".join(KINDS))] = None,
    trigger: Annotated[
        list[str] | None, typer.Option(help="Words that bring it out in a prompt; repeatable.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Weight of a request that names none.")] = None,
    bounds: Annotated[
        tuple[float, float] | None, typer.Option(help="Smallest and largest weight of a request.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Few-step method that it was distilled with, such as lcm; by default what the file says."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a LoRA against the base and write it into the registry, or update the facts of its file."""
    path, deployment = _registry_of(config)
    registry = load_registry(path) if path.is_file() else LoraRegistry()
    lora = name or Path(source).stem
    given = {"kind": kind, "trigger_words": trigger, "weight": weight, "bounds": bounds, "method": method}
    options = {field: value for field, value in given.items() if value is not None}
    values = {**_known(registry, lora, source=source), **options}
    if "kind" not in values:
        raise InvalidRequest("kind", "missing", allowed=f"--kind {'|'.join(KINDS)}")
    entry = _entry(lora, values)
    if entry.method is None:
        entry = entry.model_copy(update={"method": _stated_method(lora, entry)})
    table = base_layers(deployment.base)
    checked = described(lora, entry, table=table, swap=deployment.swap)
    changed = registry.model_dump()
    changed["loras"][lora] = checked.entry.model_dump()
    try:
        write_registry(path, LoraRegistry.model_validate(changed))
    except ValidationError as error:
        raise ConfigError(f"{path}: {problems_text(error, LoraRegistry)}") from error
    printed = Output(json=json, quiet=quiet)
    _note_warnings(printed, lora, checked)
    done = f"{lora}: {_facts(checked.entry)}; {path} is written"
    if deployment.swaps:
        done += f"; to serve it: intaglio build {config}"
    printed.result(done, data={"id": lora, **checked.entry.model_dump(mode="json"), "registry": path})


def _known(registry: LoraRegistry, lora: str, *, source: str) -> dict[str, Any]:
    """What the registry says of `lora` already; `source` is an id of the registry or a file."""
    if source in registry.loras:
        return registry.loras[source].model_dump()
    file = {"file": Path(source).resolve()}
    if lora not in registry.loras:
        return file
    return registry.loras[lora].model_dump(exclude={"file", "hub"}) | file


def _stated_method(lora: str, entry: LoraEntry) -> str | None:
    """The few-step method that the file itself says; None where it says none that is known."""
    try:
        stated = map_tensor_file(lora_path(lora, entry)).metadata.get(_METHOD)
    except (OSError, ValueError):
        return None  # whoever reads the whole file says what is wrong with it
    return stated if stated in METHOD_NAMES else None


@app.command("list")
def list_(*, config: Config = _DEFAULT, json: Json = False, quiet: Quiet = False) -> None:
    """List LoRAs and presets, and the version of each LoRA that the deployment's build serves.

    With --quiet only the ids are printed, one a line.
    """
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    served = published_loras(deployment).loras
    rows = [_row(lora, entry, served.get(lora)) for lora, entry in registry.loras.items()]
    for preset, members in registry.presets.items():
        combination = " + ".join(f"{lora}@{weight:g}" for lora, weight in members.items())
        rows.append((preset, "preset", "", "", "", combination, ""))
    table = table_of(rows, header=("id", "kind", "weight", "bounds", "trigger words", "file", "served"))
    data = registry.model_dump(mode="json")
    for lora, values in data["loras"].items():
        values["served"] = version_values(served.get(lora))
    Output(json=json, quiet=quiet).result(table, data=data, brief="\n".join(row[0] for row in rows))


def _row(lora: str, entry: LoraEntry, served: ServedLora | None) -> tuple[str, ...]:
    low, high = entry.bounds
    words = ", ".join(entry.trigger_words)
    bounds = f"{low:g} to {high:g}"
    return (lora, entry.kind, f"{entry.weight:g}", bounds, words, _facts(entry), versions_text(served))


@app.command()
def show(
    lora: Annotated[str, typer.Argument(help="Id.")],
    *,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print everything that the registry says of one LoRA or preset.

    With --quiet only the file of the LoRA (or its id on the hub) is printed, or the ids of the preset's
    LoRAs.
    """
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    values: dict[str, Any]
    served: ServedLora | None = None
    if lora in registry.loras:
        values = registry.loras[lora].model_dump(mode="json")
        brief = str(values["file"] or values["hub"])
        served = published_loras(deployment).loras.get(lora)
    elif lora in registry.presets:
        values = dict(registry.presets[lora])
        brief = "\n".join(values)
    else:
        raise _unknown(lora, registry)
    rows = [(field, _shown(value)) for field, value in values.items() if value not in (None, [], {})]
    if lora in registry.loras:
        rows.append(("served", versions_text(served)))
        values["served"] = version_values(served)
    data = {"id": lora, **values}
    Output(json=json, quiet=quiet).result(table_of(rows), data=data, brief=brief)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return str(value)


@app.command()
def check(*, config: Config = _DEFAULT, json: Json = False, quiet: Quiet = False) -> None:
    """Check every file of the registry against the base. The exit code is 1 where one is refused.

    With --quiet only what is refused is printed.
    """
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    table = base_layers(deployment.base)
    printed = Output(json=json, quiet=quiet)
    found: list[dict[str, str]] = []
    entries = list(registry.loras.items())
    console = printed.progress
    hidden = not console.is_terminal
    for lora, entry in track(entries, "checking", console=console, transient=True, disable=hidden):
        try:
            checked = check_entry(lora, entry, table=table, swap=deployment.swap)
        except IntaglioError as error:
            found.append({"id": lora, "state": "refused", "detail": str(error)})
        else:
            found.append({"id": lora, "state": "ok", "detail": f"{lora}: {_facts(checked.entry)}"})
            found += [
                {"id": lora, "state": "warning", "detail": f"{lora}: {warning}"}
                for warning in checked.warnings
            ]
    refused = [one["detail"] for one in found if one["state"] == "refused"]
    shown = table_of([(one["state"], one["detail"]) for one in found])
    brief = "\n".join(f"refused  {detail}" for detail in refused)
    printed.result(shown, data={"loras": found, "refused": len(refused)}, brief=brief)
    raise typer.Exit(FAILED if refused else 0)


@app.command()
def remove(
    lora: Annotated[str, typer.Argument(help="Id of a LoRA or preset.")],
    *,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a LoRA or a preset out of the registry. A deployment with swap stops serving the LoRA immediately;
    the user's own file stays.
    """
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    if lora not in {*registry.loras, *registry.presets}:
        raise _unknown(lora, registry)
    changed = registry.model_dump()
    changed["loras"].pop(lora, None)
    changed["presets"].pop(lora, None)
    naming = [preset for preset, members in changed["presets"].items() if lora in members]
    if naming:
        raise ConfigError(f"lora {lora}: preset {naming[0]} names it; run intaglio loras remove {naming[0]}")
    write_registry(path, LoraRegistry.model_validate(changed))
    done = f"{lora}: removed from {path}"
    unpublished = deployment.swaps and LoraStore(deployment.build_folder / LORAS_FOLDER).remove(lora)
    if unpublished:
        # Not immediately: a request that is under way may still need them.
        done += "; it is not served any more, and the next change of what is served removes its copy"
    elif lora in registry.presets:
        done += "; the next build stops serving it"
    data = {"id": lora, "registry": path, "unpublished": unpublished}
    Output(json=json, quiet=quiet).result(done, data=data)


@app.command()
def serve(
    lora: Annotated[str, typer.Argument(help="Id of a LoRA.")],
    *,
    version: Annotated[
        str | None, typer.Option(help="The beginning of its sha256; by default the registry's file.")
    ] = None,
    config: Config = _DEFAULT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve one version of a LoRA, also one that a rollback rejected. A running server does so from its next
    request on.
    """
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    if lora not in registry.loras:
        raise _unknown(lora, registry)
    if version is None:
        served = serve_file(deployment, lora, registry.loras[lora])
    else:
        served = serve_version(deployment, lora, version)
    done = f"{lora}: {shown_version(served.sha256)} is served"
    Output(json=json, quiet=quiet).result(done, data={"id": lora, "served": version_values(served)})


def _unknown(lora: str, registry: LoraRegistry) -> InvalidRequest:
    known = ", ".join([*registry.loras, *registry.presets])
    return InvalidRequest("id", f"{lora!r} is unknown", allowed=known or "none yet")


def _registry_of(config: Path) -> tuple[Path, Deployment]:
    if config == _DEFAULT and not config.is_file():
        raise ConfigError(f"{config}: no such file; name your deployment's YAML file with --config FILE")
    deployment = load_deployment(config)
    if deployment.registry is None:
        raise ConfigError(f"{config}: has no registry; add registry: loras.yaml")
    return deployment.registry, deployment


def _entry(lora: str, values: dict[str, Any]) -> LoraEntry:
    try:
        return LoraEntry.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"lora {lora}: {problems_text(error, LoraEntry)}") from error


def _note_warnings(printed: Output, lora: str, checked: CheckedLora) -> None:
    for warning in checked.warnings:
        printed.note(f"warning: {lora}: {warning}", style="yellow")


def _facts(entry: LoraEntry) -> str:
    if entry.sha256 is None:
        return "not checked yet (run intaglio loras add)"
    targets = ", ".join(f"{component} {count}" for component, count in entry.targets.items())
    ranks = "/".join(map(str, entry.rank))
    size = (entry.size or 0) / 2**20
    return f"{entry.format}, rank {ranks}, {targets}, {size:.2f} MiB, {entry.sha256[:12]}"
