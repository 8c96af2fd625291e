"""`intaglio loras add|remove|list|show|check|serve`: the registry of LoRAs that a deployment names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import KINDS, LoraEntry, LoraRegistry, load_registry, write_registry
from intaglio.errors import ConfigError, IntaglioError, InvalidRequest
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.versions import shown_version
from intaglio_export.commands.lora_versions import (
    published_loras,
    serve_file,
    serve_version,
    versions_text,
)
from intaglio_export.weights.registry import CheckedLora, base_layers, check_entry, described

__all__ = ["app"]

app = typer.Typer(name="loras", no_args_is_help=True, add_completion=False, help="The registry of LoRAs.")

_BAD = 1
Config = Annotated[Path, typer.Option(help="Deployment whose registry and base are used.")]
_DEFAULT = Path("configs/miniature.yaml")


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
) -> None:
    """Check a LoRA against the base and write it into the registry, or update the facts of its file."""
    path, deployment = _registry_of(config)
    registry = load_registry(path) if path.is_file() else LoraRegistry()
    lora = name or Path(source).stem
    given = {"kind": kind, "trigger_words": trigger, "weight": weight, "bounds": bounds}
    options = {field: value for field, value in given.items() if value is not None}
    values = {**_known(registry, lora, source=source), **options}
    if "kind" not in values:
        raise InvalidRequest("kind", "missing", allowed=f"--kind {'|'.join(KINDS)}")
    table = base_layers(deployment.base)
    checked = described(lora, _entry(lora, values), table=table, swap=deployment.swap)
    changed = registry.model_dump()
    changed["loras"][lora] = checked.entry.model_dump()
    try:
        write_registry(path, LoraRegistry.model_validate(changed))
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}") from error
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{lora}: {escape(_facts(checked.entry))}; {escape(str(path))} is written")
    _print_warnings(console, lora, checked)


def _known(registry: LoraRegistry, lora: str, *, source: str) -> dict[str, Any]:
    """What the registry says of `lora` already; `source` is an id of the registry or a file."""
    if source in registry.loras:
        return registry.loras[source].model_dump()
    file = {"file": Path(source).resolve()}
    if lora not in registry.loras:
        return file
    return registry.loras[lora].model_dump(exclude={"file", "hub"}) | file


@app.command("list")
def list_(config: Config = _DEFAULT) -> None:
    """List LoRAs and presets, and the version of each LoRA that the deployment's build serves."""
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    served = published_loras(deployment).loras
    columns = ("id", "kind", "weight", "bounds", "trigger words", "file", "served")
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for lora, entry in registry.loras.items():
        low, high = entry.bounds
        table.add_row(
            lora,
            entry.kind,
            f"{entry.weight:g}",
            f"{low:g} to {high:g}",
            escape(", ".join(entry.trigger_words)),
            escape(_facts(entry)),
            versions_text(served.get(lora)),
        )
    for preset, members in registry.presets.items():
        combination = " + ".join(f"{lora}@{weight:g}" for lora, weight in members.items())
        table.add_row(preset, "preset", "", "", "", combination)
    Console(highlight=False).print(table)


@app.command()
def show(lora: Annotated[str, typer.Argument(help="Id.")], config: Config = _DEFAULT) -> None:
    """Print everything that the registry says of one LoRA or preset."""
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    values: dict[str, Any]
    if lora in registry.loras:
        values = registry.loras[lora].model_dump(mode="json")
        values["served"] = versions_text(published_loras(deployment).loras.get(lora))
    elif lora in registry.presets:
        values = registry.presets[lora]
    else:
        raise _unknown(lora, registry)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for field, value in values.items():
        if value not in (None, [], {}):
            table.add_row(field, escape(_shown(value)))
    Console(highlight=False).print(table)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return str(value)


@app.command()
def check(config: Config = _DEFAULT) -> None:
    """Check every file of the registry against the base; the exit status is 1 where one is refused."""
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    table = base_layers(deployment.base)
    console = Console(highlight=False, soft_wrap=True)
    refused = 0
    entries = list(registry.loras.items())
    for lora, entry in track(entries, description="checking", console=console, transient=True):
        try:
            checked = check_entry(lora, entry, table=table, swap=deployment.swap)
        except IntaglioError as error:
            refused += 1
            console.print(f"[red]refused[/]  {escape(str(error))}")
        else:
            console.print(f"[green]ok[/]       {lora}: {escape(_facts(checked.entry))}")
            _print_warnings(console, lora, checked)
    raise typer.Exit(_BAD if refused else 0)


@app.command()
def remove(
    lora: Annotated[str, typer.Argument(help="Id of a LoRA or preset.")], config: Config = _DEFAULT
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
    if deployment.swaps and LoraStore(deployment.build_folder / LORAS_FOLDER).remove(lora):
        done += "; it is not served any more, and the next build removes its files"
    elif lora in registry.presets:
        done += "; the next build stops serving it"
    Console(highlight=False, soft_wrap=True).print(escape(done))


@app.command()
def serve(
    lora: Annotated[str, typer.Argument(help="Id of a LoRA.")],
    *,
    version: Annotated[
        str | None, typer.Option(help="The beginning of its sha256; by default the registry's file.")
    ] = None,
    config: Config = _DEFAULT,
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
    Console(highlight=False).print(f"{lora}: {shown_version(served.sha256)} is served")


def _unknown(lora: str, registry: LoraRegistry) -> InvalidRequest:
    known = ", ".join([*registry.loras, *registry.presets])
    return InvalidRequest("id", f"{lora!r} is unknown", allowed=known or "none yet")


def _registry_of(config: Path) -> tuple[Path, Deployment]:
    deployment = load_deployment(config)
    if deployment.registry is None:
        raise ConfigError(f"{config}: has no registry; add registry: loras.yaml")
    return deployment.registry, deployment


def _entry(lora: str, values: dict[str, Any]) -> LoraEntry:
    try:
        return LoraEntry.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "entry"
        raise ConfigError(f"lora {lora}: {place}: {first['msg']}") from error


def _print_warnings(console: Console, lora: str, checked: CheckedLora) -> None:
    for warning in checked.warnings:
        console.print(f"[yellow]warning[/]  {lora}: {escape(warning)}")


def _facts(entry: LoraEntry) -> str:
    if entry.sha256 is None:
        return "not checked yet (run intaglio loras add)"
    targets = ", ".join(f"{component} {count}" for component, count in entry.targets.items())
    ranks = "/".join(map(str, entry.rank))
    size = (entry.size or 0) / 2**20
    return f"{entry.format}, rank {ranks}, {targets}, {size:.2f} MiB, {entry.sha256[:12]}"
