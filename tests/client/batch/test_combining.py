"""Which pictures a specification asks for."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.batch.combining import Items, items_of
from intaglio_client.batch.inputs import Files
from intaglio_client.batch.spec import read_spec


def items(folder: Path, **keys: Any) -> Items:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return items_of(read_spec(path), path)


def asked(found: Items, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(item.inputs.get(name) for name in names) for item in found]


def test_a_grid_has_every_combination_and_its_last_axis_changes_fastest(tmp_path: Path) -> None:
    found = items(tmp_path, inputs={"prompt": ["a", "b"], "seed": {"from": 5, "count": 2}, "steps": 3})
    assert asked(found, "prompt", "seed", "steps") == [("a", 5, 3), ("a", 6, 3), ("b", 5, 3), ("b", 6, 3)]
    assert [item.index for item in found] == [0, 1, 2, 3]
    assert found[2].prompt == "b"
    assert found[2].parameters == {"seed": 5, "steps": 3, "output_format": "png"}


def test_zip_takes_values_side_by_side(tmp_path: Path) -> None:
    found = items(tmp_path, inputs={"prompt": ["a", "b"], "seed": [1, 2], "steps": 3}, combine="zip")
    assert asked(found, "prompt", "seed", "steps") == [("a", 1, 3), ("b", 2, 3)]
    with pytest.raises(ConfigError, match="axes of one length; prompt has 2, seed has 3"):
        items(tmp_path, inputs={"prompt": ["a", "b"], "seed": [1, 2, 3]}, combine="zip")


def test_random_takes_different_combinations_that_the_seed_decides(tmp_path: Path) -> None:
    inputs = {"prompt": ["a", "b", "c"], "seed": {"from": 0, "count": 2**40}}
    first, again, other, longer = (
        asked(
            items(tmp_path, inputs=inputs, combine="random", random={"count": count, "seed": seed}),
            *inputs,
        )
        for count, seed in ((20, 1), (20, 1), (20, 2), (40, 1))
    )
    assert first == again != other
    assert longer[:20] == first
    assert len(set(longer)) == 40
    assert {prompt for prompt, _ in longer} == {"a", "b", "c"}
    small = {"prompt": ["a", "b"], "seed": [1, 2]}
    every = asked(items(tmp_path, inputs=small, combine="random", random={"count": 4}), *small)
    assert len(set(every)) == 4
    with pytest.raises(ConfigError, match=r"random\.count is 5, but there are 4 combinations"):
        items(tmp_path, inputs=small, combine="random", random={"count": 5})


def test_random_combinations_stay_the_same_in_later_versions(tmp_path: Path) -> None:
    """A folder that was begun goes on: these values may never change."""
    inputs = {"prompt": ["a", "b", "c"], "seed": {"from": 0, "count": 1000}}
    found = items(tmp_path, inputs=inputs, combine="random", random={"count": 4, "seed": 7})
    assert asked(found, "prompt", "seed") == [("b", 76), ("b", 193), ("a", 539), ("c", 22)]


def test_pictures_with_the_same_loras_come_together_in_a_stable_order(tmp_path: Path) -> None:
    inputs = {"prompt": ["a", "b <lora:x>"], "loras": [[], "night", "night:0.5"], "seed": [1, 2]}
    found = asked(items(tmp_path, inputs=inputs), "prompt", "loras", "seed")
    sets = [(prompt.endswith(">"), str(loras)) for prompt, loras, _ in found]
    changes = sum(one != other for one, other in itertools.pairwise(sets))
    assert changes == len(set(sets)) - 1
    assert found[:2] == [("a", None, 1), ("a", None, 2)]
    spread = asked(items(tmp_path, inputs=inputs, group_loras=False), "prompt", "loras", "seed")
    assert sorted(map(str, spread)) == sorted(map(str, found))


def test_values_are_written_as_for_generate(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"map")
    found = items(
        tmp_path,
        inputs={
            "prompt": "a",
            "seed": 1,
            "size": "192x256",
            "cfg": 4.5,
            "sampler": "Euler a",
            "lora": [["night:0.8", "mara"]],
            "control": "type=canny,image=map.png,weight=0.5; type=pose,pose=waving-01",
            "sigmas": [[9.0, 1.0, 0.0]],
        },
    )
    assert len(found) == 1
    inputs = dict(found[0].inputs)
    controls = inputs.pop("controls")
    assert inputs == {
        "prompt": "a",
        "seed": 1,
        "width": 192,
        "height": 256,
        "guidance_scale": 4.5,
        "scheduler": "euler_a",
        "loras": [{"id": "night", "weight": 0.8}, {"id": "mara"}],
        "sigmas": [9.0, 1.0, 0.0],
    }
    assert (controls[0]["image"], controls[0]["weight"], len(controls[0]["sha256"])) == ("map.png", 0.5, 64)
    assert controls[1]["pose"] == "waving-01"
    assert found[0].parameters["controls"][0].image == b"map"


def test_an_item_is_told_by_what_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"map")
    inputs: dict[str, Any] = {"prompt": "a", "seed": [1, 2], "control": "type=canny,image=map.png"}
    one, other = items(tmp_path, inputs=inputs)
    assert one.digest != other.digest
    assert items(tmp_path, inputs=inputs, limits={"tried": 1})[0].digest == one.digest
    assert items(tmp_path, inputs=inputs, output={"format": "webp"})[0].digest != one.digest
    (tmp_path / "map.png").write_bytes(b"another map")
    assert items(tmp_path, inputs=inputs)[0].digest != one.digest


def table(folder: Path, *rows: list[str]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_table_has_one_picture_a_row(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        ["prompt", "seed", "steps", "cfg", "loras", "trigger_words", "size"],
        ["a, b", "1", "4", "2.5", "night:0.5; mara", "false", "192x256"],
        ["c", "2", "", "", "", "", ""],
        ["", "", "", "", "", "", ""],
    )
    found = items_of(read_spec(path), path)
    assert [dict(item.inputs) for item in found] == [
        {
            "prompt": "a, b",
            "seed": 1,
            "steps": 4,
            "guidance_scale": 2.5,
            "loras": [{"id": "night", "weight": 0.5}, {"id": "mara"}],
            "trigger_words": False,
            "width": 192,
            "height": 256,
        },
        {"prompt": "c", "seed": 2},
    ]


def test_a_table_is_one_axis_beside_others(tmp_path: Path) -> None:
    table(tmp_path, ["prompt", "steps"], ["a", "3"], ["b", "4"])
    found = items(tmp_path, rows="table.csv", inputs={"seed": [1, 2]}, limits={"accepted": 1, "per": "rows"})
    assert asked(found, "prompt", "steps", "seed") == [("a", 3, 1), ("a", 3, 2), ("b", 4, 1), ("b", 4, 2)]
    assert len({found.group(index) for index in range(4)}) == 2
    per_prompt = items(
        tmp_path, rows="table.csv", inputs={"seed": [1, 2]}, limits={"accepted": 1, "per": "prompt"}
    )
    assert [per_prompt.group(index) for index in range(4)] == ['{"prompt": "a"}'] * 2 + [
        '{"prompt": "b"}'
    ] * 2


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["prompt", "seed"]], "has no rows"),
        ([["prompt", "sed"], ["a", "1"]], "column sed: unknown input; did you mean seed?"),
        ([["prompt", "seed", "seed"], ["a", "1", "1"]], "two columns are seed"),
        ([["prompt", "seed"], ["a", "1", "2"]], "line 2: has 3 cells, the header has 2"),
        ([["prompt", "seed"], ["a", "1"], ["b", "x"]], "line 3: seed: 'x'; allowed: an integer"),
        (
            [["prompt", "seed", "trigger_words"], ["a", "1", "yes"]],
            "trigger_words: 'yes'; allowed: true or false",
        ),
        ([["prompt", "seed", "size"], ["a", "1", "big"]], "line 2: size: 'big'; allowed: WIDTHxHEIGHT"),
        ([["prompt", "seed"], ["a", ""], ["b", "1"]], "not every picture has a seed"),
        ([["prompt", "seed", "num_images"], ["a", "1", "2"]], "num_images: is no input of a batch"),
        (
            [["prompt", "seed", "guidance_rescale"], ["a", "1", "2"]],
            "picture 0: guidance_rescale: 2.0 is out",
        ),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, rows: list[list[str]], says: str) -> None:
    path = table(tmp_path, *rows)
    with pytest.raises(ConfigError) as caught:
        items_of(read_spec(path), path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"inputs": {"prompt": "a"}}, "not every picture has a seed"),
        ({"inputs": {"seed": 1}}, "not every picture has a prompt"),
        ({"inputs": {"prompt": "a", "seed": -1}}, "inputs.seed: -1"),
        (
            {"inputs": {"prompt": "a", "seed": {"from": 1}}},
            "inputs.seed: {'from': 1}; allowed: a seed, a list",
        ),
        ({"inputs": {"prompt": "a", "seed": {"from": 1, "count": 0}}}, "inputs.seed"),
        ({"inputs": {"prompt": [], "seed": 1}}, "inputs.prompt: an empty list"),
        (
            {"inputs": {"prompt": "a", "seed": 1, "stepz": 4}},
            "inputs.stepz: unknown input; did you mean steps?",
        ),
        ({"inputs": {"prompt": "a", "seed": 1, "steps": [4, "x"]}}, "picture 1: steps: str"),
        ({"inputs": {"prompt": "a", "seed": 1, "priority": "batch"}}, "priority: is no input of a batch"),
        ({"inputs": {"prompt": "a", "seed": 1, "size": "big"}}, "inputs.size: 'big'"),
        (
            {"inputs": {"prompt": "a", "seed": 1, "loras": [["night:x"]]}},
            "inputs.loras[0]: 'x'; allowed: a number",
        ),
        ({"inputs": {"prompt": "a", "seed": 1, "loras": [{"night": 1}]}}, "inputs.loras[0]"),
        ({"inputs": {"prompt": "a", "seed": 1, "controls": "type=x,image=no.png"}}, "no.png"),
        ({"inputs": {"prompt": "\ud800", "seed": 1}}, "picture 0: prompt: character 0 has no UTF-8 form"),
        (
            {"inputs": {"prompt": "a", "seed": 1, "size": "8x8", "width": 8}},
            "width comes from size and from width",
        ),
        ({"inputs": {"prompt": "a", "seed": 1, "cfg": 3.0, "guidance_scale": 4.0}}, "guidance_scale"),
        (
            {"inputs": {"prompt": "a", "seed": [1, 1, 2]}, "limits": {"tried": 1, "per": "steps"}},
            "limits.per is 'steps'",
        ),
        (
            {"inputs": {"prompt": "a", "seed": 1}, "output": {"names": "{index}-{pose}"}},
            "output.names has {pose}",
        ),
        ({"inputs": {"prompt": ["a"] * 1001, "seed": {"from": 0, "count": 1000}}}, "1001000 pictures"),
        ({"rows": "none.csv"}, "none.csv: no such file"),
    ],
)
def test_wrong_inputs_are_named(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        items(tmp_path, **keys)
    assert says in str(caught.value)


def test_of_a_million_seeds_only_the_first_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []

    def check(prompt: str, parameters: Any) -> None:
        checked.append((prompt, parameters["seed"], parameters.get("steps")))

    monkeypatch.setattr("intaglio_client.batch.combining.tensors_from_parameters", check)
    path = tmp_path / "spec.yaml"
    inputs = {"prompt": ["a", "b"], "seed": {"from": 5, "count": 1000}, "steps": [4, 8]}
    path.write_text(yaml.safe_dump({"inputs": inputs}, sort_keys=False))
    assert len(items_of(read_spec(path), path)) == 4000
    assert checked == [("a", 5, 4), ("a", 5, 8), ("b", 5, 4)]


def test_images_of_controls_are_read_again_instead_of_all_kept(tmp_path: Path) -> None:
    names = [Path(f"{number}.png") for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(name.stem.encode() * 10)
    files = Files(tmp_path, most_bytes=20)
    for name in (*names, names[1]):
        assert files.data(name) == name.stem.encode() * 10
    digests = dict(files.digests)
    for name in names:
        (tmp_path / name).unlink()
    assert [files.data(name)[:1] for name in (names[3], names[1])] == [b"3", b"1"], "the last two are kept"
    assert [files.digest(name) for name in names] == list(digests.values()), "no file is read for a digest"
    with pytest.raises(InvalidRequest, match=r"0\.png: No such file"):
        files.data(names[0])
    (tmp_path / names[0]).write_bytes(b"another")
    with pytest.raises(InvalidRequest, match=r"image: 0\.png was changed; allowed: the file that was there"):
        files.data(names[0])
