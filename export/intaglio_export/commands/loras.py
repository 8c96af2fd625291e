"""`intaglio loras add|list|show|check`: the registry of LoRAs that a deployment names."""

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
from intaglio_export.weights.registry import CheckedLora, base_layers, check_entry, described

__all__ = ["app"]

app = typer.Typer(name="loras", no_args_is_help=True, add_completion=False, help="The registry of LoRAs.")

_BAD = 1
Config = Annotated[Path, typer.Option(help="Deployment whose registry and base are meant.")]
_DEFAULT = Path("configs/miniature.yaml")


@app.command()
def add(  # noqa: PLR0913  (one option a field)
    source: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, or the id of a LoRA in the registry to look at again.",
            show_default=False,
        ),
    ],
    *,
    config: Config = _DEFAULT,
    name: Annotated[
        str | None, typer.Option("--id", help="Id in the registry; by default the file's name.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help=", ".join(KINDS))] = None,
    trigger: Annotated[list[str] | None, typer.Option(help="Words that call it up; repeatable.")] = None,
    weight: Annotated[float | None, typer.Option(help="Weight where a request names none.")] = None,
    bounds: Annotated[
        tuple[float, float] | None, typer.Option(help="Least and most weight of a request.")
    ] = None,
) -> None:
    """Check a LoRA against the base and put it into the registry, or take the facts of its changed file."""
    path, deployment = _registry_of(config)
    registry = load_registry(path) if path.is_file() else LoraRegistry()
    lora = name or Path(source).stem
    given = {"kind": kind, "trigger_words": trigger, "weight": weight, "bounds": bounds}
    values: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    before = registry.loras.get(lora)
    if source in registry.loras:
        values = {**registry.loras[source].model_dump(), **values}
    else:
        kept = {} if before is None else before.model_dump(exclude={"file", "hub"})
        values = {**kept, "file": Path(source).resolve(), **values}
    if "kind" not in values:
        raise InvalidRequest("kind", "missing", allowed=f"--kind {'|'.join(KINDS)}")
    table = base_layers(deployment.base)
    checked = described(lora, _entry(lora, values), table=table, swap=deployment.swap)
    entry = checked.entry
    try:
        changed = LoraRegistry.model_validate(
            {**registry.model_dump(), "loras": {**registry.model_dump()["loras"], lora: entry.model_dump()}}
        )
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}") from error
    write_registry(path, changed)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{lora}: {escape(_facts(entry))}; {escape(str(path))} is written")
    _print_warnings(console, lora, checked)


@app.command("list")
def list_(config: Config = _DEFAULT) -> None:
    """LoRAs and presets."""
    path, _ = _registry_of(config)
    registry = load_registry(path)
    table = Table("id", "kind", "weight", "bounds", "trigger words", "file", box=None, padding=(0, 2, 0, 0))
    for lora, entry in registry.loras.items():
        low, high = entry.bounds
        table.add_row(
            lora,
            entry.kind,
            f"{entry.weight:g}",
            f"{low:g} to {high:g}",
            escape(", ".join(entry.trigger_words)),
            escape(_facts(entry)),
        )
    for preset, members in registry.presets.items():
        table.add_row(
            preset, "preset", "", "", "", " + ".join(f"{lora}@{weight:g}" for lora, weight in members.items())
        )
    Console(highlight=False).print(table)


@app.command()
def show(lora: Annotated[str, typer.Argument(help="Id.")], config: Config = _DEFAULT) -> None:
    """Everything the registry says of one LoRA or preset."""
    path, _ = _registry_of(config)
    registry = load_registry(path)
    values: dict[str, Any]
    if lora in registry.loras:
        values = registry.loras[lora].model_dump(mode="json")
    elif lora in registry.presets:
        values = registry.presets[lora]
    else:
        raise InvalidRequest(
            "id",
            f"{lora!r} is unknown",
            allowed=", ".join([*registry.loras, *registry.presets]) or "none yet",
        )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for field, value in values.items():
        if value not in (None, [], {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            table.add_row(
                field,
                escape(
                    ", ".join(f"{key} {count}" for key, count in value.items())
                    if isinstance(value, dict)
                    else str(shown)
                ),
            )
    Console(highlight=False).print(table)


@app.command()
def check(config: Config = _DEFAULT) -> None:
    """Every file of the registry against the base, key by key; ends with 1 where one is refused."""
    path, deployment = _registry_of(config)
    registry = load_registry(path)
    table = base_layers(deployment.base)
    console = Console(highlight=False, soft_wrap=True)
    refused = 0
    for lora, entry in track(
        registry.loras.items(),
        description="checking",
        console=console,
        transient=True,
        total=len(registry.loras),
    ):
        try:
            checked = check_entry(lora, entry, table=table, swap=deployment.swap)
            console.print(f"[green]ok[/]       {lora}: {escape(_facts(checked.entry))}")
            _print_warnings(console, lora, checked)
        except IntaglioError as error:
            refused += 1
            console.print(f"[red]refused[/]  {escape(str(error))}")
    raise typer.Exit(_BAD if refused else 0)


def _registry_of(config: Path) -> tuple[Path, Deployment]:
    deployment = load_deployment(config)
    if deployment.registry is None:
        raise ConfigError(f"{config}: names no registry; add registry: loras.yaml")
    return deployment.registry, deployment


def _entry(lora: str, values: dict[str, Any]) -> LoraEntry:
    try:
        return LoraEntry.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"lora {lora}: {'.'.join(map(str, first['loc'])) or 'entry'}: {first['msg']}"
        ) from error


def _print_warnings(console: Console, lora: str, checked: CheckedLora) -> None:
    for warning in checked.warnings:
        console.print(f"[yellow]warning[/]  {lora}: {escape(warning)}")


def _facts(entry: LoraEntry) -> str:
    if entry.sha256 is None:
        return "not looked at yet (intaglio loras add)"
    targets = ", ".join(f"{component} {count}" for component, count in entry.targets.items())
    ranks = "/".join(map(str, entry.rank))
    return (
        f"{entry.format}, rank {ranks}, {targets}, {(entry.size or 0) / 2**20:.2f} MiB, {entry.sha256[:12]}"
    )
