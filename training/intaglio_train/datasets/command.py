"""`intaglio data`: from what is published and collected to data to train on."""

from __future__ import annotations

import typer

from intaglio_train.datasets.bdd_command import bdd_captions
from intaglio_train.datasets.curate_command import curate
from intaglio_train.datasets.table_command import table

__all__ = ["app"]

app = typer.Typer(name="data", add_completion=False, help="Data to train on: captions, tables, curating.")
for command in (bdd_captions, table, curate):
    app.command(no_args_is_help=True)(command)
