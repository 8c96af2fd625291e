"""Rules for the values of a checkpoint's configuration files: what is done with each key, and checking them.

    BUILT          diffusers or transformers build the network from it, and the exported graph is that network
    read()         intaglio's own code reads it
    without()      it changes no picture, for the reason given
    only()         intaglio computes some values of it only; any other value is refused
    only_each()    the same for every entry of a list

A key without a rule is refused, unless its value says nothing. The tables are those of
`intaglio.sampling.schedules` (schedulers) and `intaglio_export.weights.configuration` (all other components).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from intaglio.errors import ConfigError

__all__ = [
    "BUILT",
    "REQUIRED",
    "Rule",
    "Rules",
    "check_values",
    "only",
    "only_each",
    "read",
    "values_read",
    "without",
]


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""Default of a key that a file must have."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with one key of a configuration file."""

    kind: Literal["built", "read", "without effect", "only", "only each"]
    default: Any = None
    """Value of an absent key, as diffusers and transformers have it. It matters to `read` and `only`."""
    allowed: tuple[Any, ...] = ()
    """Of `only`: every value that is computed."""
    why: str = ""
    """Of `without effect`: the reason. Of `only`: what another value means, and what to do."""

    def allows(self, value: Any) -> bool:
        """Whether intaglio computes `value`."""
        match self.kind:
            case "only":
                return value in self.allowed
            case "only each":
                entries = value if isinstance(value, list | tuple) else (value,)
                return all(entry in self.allowed for entry in entries)
            case _:
                return value is not REQUIRED


Rules = Mapping[str, Rule]
BUILT: Final = Rule("built")
_SILENT: Final[tuple[Any, ...]] = (None, False, [], {}, "")
"""Values that say nothing: an unknown key may have them."""
_SHOWN: Final = 3
"""Supported values that a message names."""


def read(default: Any) -> Rule:
    """A key that intaglio's own code reads; `REQUIRED` where a file without it is refused."""
    return Rule("read", default)


def without(why: str) -> Rule:
    """A key that changes no picture."""
    return Rule("without effect", why=why)


def only(*allowed: Any, why: str, default: Any = REQUIRED) -> Rule:
    """A key of which some values are computed; `default` is the first of them where it is not given."""
    return Rule("only", allowed[0] if default is REQUIRED else default, allowed, why)


def only_each(*allowed: Any, why: str, default: Any) -> Rule:
    """A key whose value is one of `allowed` or a list of them."""
    return Rule("only each", default, allowed, why)


def check_values(rules: Rules, config: Mapping[str, Any], *, what: str) -> None:
    """Refuse a configuration that asks for something intaglio does not compute.

    Raises:
        ConfigError: names `what`, the key, its value, the values that are computed, and what to do.
    """
    for key, rule in rules.items():
        value = config.get(key, rule.default)
        if value is None and rule.default is REQUIRED:
            value = REQUIRED
        if rule.allows(value):
            continue
        if value is REQUIRED:
            needed = ", ".join(name for name, other in rules.items() if other.default is REQUIRED)
            raise ConfigError(f"{what} has no {key}; it must have {needed}")
        said = f"{key}: {value!r}" if key in config else f"no {key}, which means {value!r}"
        raise ConfigError(f"{what} says {said}; supported is {_listed(rule.allowed)}: {rule.why}")
    for key, value in config.items():
        if key not in rules and value not in _SILENT:
            raise ConfigError(
                f"{what} says {key}: {value!r}, which intaglio does not know; "
                "it may change the picture, so the checkpoint is not used"
            )


def _listed(allowed: tuple[Any, ...]) -> str:
    """`allowed`, or the first of it where it is long: a message is one line."""
    shown = " or ".join(repr(one) for one in allowed[:_SHOWN])
    return shown if len(allowed) <= _SHOWN else f"{shown} or {len(allowed) - _SHOWN} others"


def values_read(rules: Rules, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the default of every absent key that intaglio reads or checks."""
    known = ("read", "only", "only each")
    defaults = {key: rule.default for key, rule in rules.items() if rule.kind in known}
    return defaults | dict(config)
