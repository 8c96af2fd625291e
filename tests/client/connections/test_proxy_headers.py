"""The name of a request's LoRAs, by which a proxy chooses the server, and the headers of both clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from intaglio_client import AsyncClient, Client, Lora
from intaglio_client.connections.proxy_headers import (
    LORAS_HEADER,
    NO_LORAS,
    REQUEST_ID_HEADER,
    lora_set_name,
)
from intaglio_client.parameters import tensors_from_parameters

from ..fake_server import fake_server, picture, stream_of


def name_of(prompt: str, *loras: Any) -> str:
    return lora_set_name(tensors_from_parameters(prompt, {"loras": loras} if loras else {}))


@pytest.mark.parametrize(
    ("prompt", "loras", "name"),
    [
        ("a fox", (), NO_LORAS),
        ("a fox", (("night", 0.8), ("mara", 1)), "mara@1+night@0.8"),
        ("a fox", (Lora("mara", 1.0), ("night", 0.8)), "mara@1+night@0.8"),
        ("a fox <lora:night:0.80> <lora:mara:1>", (), "mara@1+night@0.8"),
        ("a fox <lora:night:0.8>", (("mara", 1.0), ("night", 0.8)), "mara@1+night@0.8"),
        ("a fox", (("night",),), "night"),
        ("a fox", (("night", 0.0),), NO_LORAS),
        ("a fox <lora:night:", (("mara", 1.0),), "mara@1"),
        (r"a fox \<lora:night:0.8>", (), NO_LORAS),
    ],
)
def test_equal_sets_have_equal_names(prompt: str, loras: tuple[Any, ...], name: str) -> None:
    assert name_of(prompt, *loras) == name


@pytest.mark.parametrize("lora", ["nächtlich", "a b", "n" * 300])
def test_a_name_that_no_header_holds_becomes_a_digest(lora: str) -> None:
    name = name_of(f"a fox <lora:{lora}:0.5>")
    assert len(name) == 64
    assert name == name_of(f"a bear <lora:{lora}:0.5>")
    assert name != name_of(f"a fox <lora:{lora}:0.6>")


def test_calls_of_both_clients_have_their_headers() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.generate("a fox", loras=[("night", 0.5)])
            await client.stream("a fox <lora:night:0.5>").result()

    with fake_server(picture, stream_of(), picture, stream_of()) as server:
        with Client(server.url) as client:
            client.generate("a fox")
            client.stream("a fox <lora:night:0.5>").result()
        asyncio.run(ask(server.url))
    names = [one[LORAS_HEADER] for one in server.headers]
    assert names == [NO_LORAS, "night@0.5", "night@0.5", "night@0.5"]
    assert [one[REQUEST_ID_HEADER] for one in server.headers] == [one.id for one in server.requests]
