"""Options of Triton are passed through, but for those that open or contradict something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.errors import InvalidRequest
from intaglio.serving.arguments import TritonSettings, triton_arguments
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import find_triton
from intaglio.serving.triton_options import REFUSED, checked_options, option_names

SETTINGS = TritonSettings(
    repository=Path("/models"), endpoints=Endpoints(http_port=1, grpc_port=2, metrics_port=3), log=Path("log")
)


@pytest.fixture(scope="module")
def help_text() -> str:
    return find_triton().options


def test_words_become_options(help_text: str) -> None:
    given = ["--log-verbose", "1", "--trace-config=level=TIMESTAMPS", "--trace-config", "rate=100"]
    assert checked_options(given, help_text) == [
        "--log-verbose=1", "--trace-config=level=TIMESTAMPS", "--trace-config=rate=100",
    ]  # fmt: skip


def test_a_question_for_help_is_not_passed_on(help_text: str) -> None:
    """Triton would print its options into the log and end."""
    with pytest.raises(InvalidRequest, match=r"--help is refused: .*; use tritonserver --help"):
        checked_options(["--help"], help_text)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_undoes_a_rule_is_refused_by_name(name: str, help_text: str) -> None:
    for words in ([f"{name}=x"], [name, "x"]):
        with pytest.raises(InvalidRequest, match=f"{name} is refused: "):
            checked_options(words, help_text)


def test_abbreviations_and_typos_are_refused(help_text: str) -> None:
    """Triton itself takes an abbreviation."""
    with pytest.raises(InvalidRequest, match="this Triton has no --http-restricted;"):
        checked_options(["--http-restricted=x"], help_text)
    with pytest.raises(InvalidRequest, match=r"no --trace-confg; allowed: did you mean --trace-config\?"):
        checked_options(["--trace-confg=x"], help_text)
    with pytest.raises(InvalidRequest, match="'models'; allowed: --option=value"):
        checked_options(["models"], help_text)


def test_every_option_that_we_set_is_refused_or_replaced(help_text: str) -> None:
    """Triton would take the second of two values, and nobody could say which rule holds."""
    ours = triton_arguments(
        SETTINGS, name="a", shared_memory_prefix="b", backends=Path("c"), options=help_text
    )
    names = [word.partition("=")[0] for word in ours]
    replaced = set(names) - set(REFUSED)
    assert replaced == {
        "--allow-gpu-metrics",
        "--grpc-http2-max-pings-without-data",
        "--grpc-http2-min-recv-ping-interval-without-data",
        "--grpc-keepalive-permit-without-calls",
        "--grpc-keepalive-time",
        "--grpc-keepalive-timeout",
    }
    for name in replaced:
        given = replace(SETTINGS, options=[f"{name}=7"])
        words = triton_arguments(given, name="a", shared_memory_prefix="b", backends=None, options=help_text)
        assert [word for word in words if word.partition("=")[0] == name] == [f"{name}=7"]


def test_the_packaged_triton_lists_its_options(help_text: str) -> None:
    names = option_names(help_text)
    assert {"--trace-config", "--log-verbose", "--grpc-use-ssl", "--model-repository"} <= set(names)
