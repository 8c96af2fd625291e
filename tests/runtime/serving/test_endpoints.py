"""Ports are free, different, and named where they are not."""

from __future__ import annotations

import socket

import pytest

from intaglio.errors import ConfigError
from intaglio.serving.endpoints import Endpoints, choose_ports


def test_zeros_become_different_free_ports() -> None:
    chosen = choose_ports(Endpoints())
    assert len(set(chosen.ports.values()) - {0}) == 3
    assert chosen.url("grpc") == f"127.0.0.1:{chosen.grpc_port}"


def test_a_server_on_every_address_is_reached_on_loopback() -> None:
    assert Endpoints(host="0.0.0.0", http_port=8000).url("http") == "127.0.0.1:8000"


def test_a_host_that_is_not_this_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"http port 192\.0\.2\.1:0: .*; give an address of this machine"):
        choose_ports(Endpoints(host="192.0.2.1"))


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"grpc port 127\.0\.0\.1:{port}: .*--grpc-port"):
            choose_ports(Endpoints(grpc_port=port))
