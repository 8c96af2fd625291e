"""Options of `tritonserver` that `intaglio serve CONFIG -- --option=value` passes through.

Everything about traces, logs, keepalive and pools of memory may be set. Refused by name is what
would undo a rule of security, or contradict what `intaglio serve` sets itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from intaglio.errors import InvalidRequest

__all__ = ["REFUSED", "checked_options", "option_names"]

_FIELD: Final = "Triton option"
_OPENS: Final = "it would open what only the administrator may use"
_SETS: Final = "intaglio serve sets it"
_LOADS: Final = "intaglio serve decides which models are loaded"
_SECRET: Final = "models would see the administrator's secret"
_TLS: Final = "use --tls-cert, --tls-key and --tls-ca before the --, which try the files"
REFUSED: Final[Mapping[str, str]] = {
    "--allow-client-shm": _OPENS,
    "--allow-sagemaker": _OPENS,
    "--allow-vertex-ai": _OPENS,
    "--grpc-restricted-protocol": _OPENS,
    "--http-restricted-api": _OPENS,
    "--sagemaker-port": _OPENS,
    "--vertex-ai-port": _OPENS,
    "--grpc-header-forward-pattern": _SECRET,
    "--http-header-forward-pattern": _SECRET,
    "--grpc-infer-allocation-pool-size": "memory would have no bound",
    "--grpc-max-response-pool-size": "memory would have no bound",
    "--help": "Triton would print its options and end; use tritonserver --help",
    "--disable-auto-complete-config": _SETS,
    "--exit-on-error": _SETS,
    "--exit-timeout-secs": _SETS,
    "--id": _SETS,
    "--strict-model-config": _SETS,
    "--strict-readiness": _SETS,
    "--allow-grpc": "clients need gRPC",
    "--allow-http": "intaglio serve watches Triton over HTTP",
    "--allow-metrics": "intaglio serve prints the address of the metrics",
    "--backend-config": _SETS,
    "--backend-directory": _SETS,
    "--repoagent-directory": "code would run that the build does not hold",
    "--cache-directory": "code would run that the build does not hold",
    "--load-model": _LOADS,
    "--model-config-name": _LOADS,
    "--model-control-mode": _LOADS,
    "--model-namespacing": _LOADS,
    "--model-repository": _LOADS,
    "--model-store": _LOADS,
    "--repository-poll-secs": _LOADS,
    "--grpc-use-ssl": _TLS,
    "--grpc-use-ssl-mutual": _TLS,
    "--grpc-server-cert": _TLS,
    "--grpc-server-key": _TLS,
    "--grpc-root-cert": _TLS,
    "--grpc-address": "use --host of intaglio serve",
    "--grpc-port": "use --grpc-port before the --",
    "--http-address": "use --host or --http-host of intaglio serve",
    "--http-port": "use --http-port before the --",
    "--metrics-address": "use --host or --metrics-host of intaglio serve",
    "--metrics-port": "use --metrics-port before the --",
    "--reuse-grpc-port": "two servers would share a port",
    "--reuse-http-port": "two servers would share a port",
    "--log-file": "use --log of intaglio serve, which reads what Triton writes",
}
"""Option -> why it is refused, or what to use instead."""
_NAME: Final = re.compile(r"^\s+(?:-\w, )?(--[a-z0-9-]+)", re.MULTILINE)


def checked_options(words: Iterable[str], help_text: str) -> list[str]:
    """`words` as a list of `--option=value`.

    `help_text` is what `tritonserver --help` prints. An option that it does not list is refused too: Triton
    takes abbreviations, so it could be one of the refused options.

    Raises:
        InvalidRequest: an option is refused or unknown, or a word is no option.
    """
    known = option_names(help_text)
    found: list[str] = []
    for word in words:
        if word.startswith("-"):
            _check_name(word.partition("=")[0], known)
            found.append(word)
        elif found and "=" not in found[-1]:
            found[-1] = f"{found[-1]}={word}"
        else:
            raise InvalidRequest(_FIELD, repr(word), allowed="--option=value, such as --log-verbose=1")
    return found


def option_names(help_text: str) -> list[str]:
    """The options that `tritonserver --help` lists."""
    return list(dict.fromkeys(_NAME.findall(help_text)))


def _check_name(name: str, known: Collection[str]) -> None:
    if name in REFUSED:
        raise InvalidRequest(_FIELD, f"{name} is refused: {REFUSED[name]}", allowed="other options of Triton")
    if name not in known:
        near = difflib.get_close_matches(name, [one for one in known if one not in REFUSED], n=1)
        right = f"did you mean {near[0]}?" if near else "what tritonserver --help lists"
        raise InvalidRequest(_FIELD, f"this Triton has no {name}", allowed=right)
