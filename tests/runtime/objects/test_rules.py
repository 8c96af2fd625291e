"""Rules about what is in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.objects import ObjectRules
from intaglio.contract.yaml_files import validated
from intaglio.errors import ConfigError
from intaglio.objects.found import FoundObject
from intaglio.objects.rules import broken_rule, check_rules

BOX = (0.0, 0.0, 9.0, 9.0)
OBJECTS = [
    FoundObject(0, "person", 0.9, BOX),
    FoundObject(0, "person", 0.5, BOX),
    FoundObject(1, "bus", 0.4, BOX),
]


def rules(**values: Any) -> ObjectRules:
    return validated(ObjectRules, values, Path("rules.yaml"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, ""),
        ({"require": [{"class": "person"}]}, ""),
        ({"require": [{"class": "person", "at_least": 2, "confidence": 0.5}]}, ""),
        (
            {"require": [{"class": "person", "at_least": 2, "confidence": 0.6}]},
            "1 person, required: at least 2 (confidence 0.6)",
        ),
        ({"require": [{"class": "person", "at_most": 1}]}, "2 person, required: at most 1"),
        ({"require": [{"class": "cat", "at_least": 0, "at_most": 0}]}, ""),
        ({"require": [{"class": "cat"}]}, "0 cat, required: at least 1"),
        ({"forbid": [{"class": "bus"}]}, "1 bus, forbidden"),
        ({"forbid": [{"class": "bus", "confidence": 0.5}]}, ""),
        ({"forbid": [{"class": "bus"}], "require": [{"class": "cat"}]}, "1 bus, forbidden"),
    ],
)
def test_the_first_broken_rule_is_said(given: dict[str, Any], says: str) -> None:
    assert broken_rule(rules(**given), OBJECTS) == says


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"require": [{"at_least": 1}]}, "class"),
        ({"require": [{"class": "person", "at_least": 3, "at_most": 2}]}, "at_least 3 is above at_most 2"),
        ({"require": [{"class": "person", "at_least": -1}]}, "at_least"),
        ({"forbid": [{"class": "person", "confidence": 2}]}, "confidence"),
        ({"forbid": [{"class": "person", "at_most": 1}]}, "at_most"),
        ({"forbidden": []}, "forbidden"),
    ],
)
def test_a_rule_that_is_none_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=rf"rules\.yaml: .*{says}"):
        rules(**given)


def test_a_class_that_the_network_does_not_know_is_named() -> None:
    check_rules(rules(require=[{"class": "bus"}]), ["person", "bus"], least=0.25)
    with pytest.raises(
        ConfigError, match="class 'truck': the network does not know it; its classes: person, bus"
    ):
        check_rules(rules(forbid=[{"class": "truck"}]), ["person", "bus"], least=0.25)


def test_a_rule_about_objects_that_are_never_found_is_refused() -> None:
    check_rules(rules(forbid=[{"class": "bus", "confidence": 0.25}]), ["bus"], least=0.25)
    for kind in ("forbid", "require"):
        given = {kind: [{"class": "bus", "confidence": 0.2}]}
        with pytest.raises(ConfigError, match=r"class 'bus': confidence 0\.2 of the rule is below 0\.25"):
            check_rules(rules(**given), ["bus"], least=0.25)
