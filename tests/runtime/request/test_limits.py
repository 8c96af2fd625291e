"""Each limit is stated once, for whichever model is asked."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import NetworkFile
from intaglio.contract.config import Execution, Limits
from intaglio.errors import InvalidRequest
from intaglio.request.limits import Workload, check_limits, check_resident, check_size, check_window

LIMITS = Limits(steps=10, images=2, controls=1, cost=64 * 64 * 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 11}, "steps: 11 is out of range; allowed: 1 to 10"),
        ({"steps": 0}, "steps: 0 is out of range; allowed: 1 to 10"),
        ({"images": 3}, "num_images: 3 is out of range; allowed: 1 to 2"),
        ({"images": 0}, "num_images: 0 is out of range; allowed: 1 to 2"),
        ({"controls": 2}, "controls: 2 is out of range; allowed: 0 to 1"),
        ({"controls": 1, "steps": 6}, "steps: 6 steps of 8192 pixels .* allowed: 1 to 5 with these"),
    ],
)
def test_each_limit_is_named(change: dict[str, int], says: str) -> None:
    usual = {"width": 64, "height": 64, "images": 1, "steps": 10, "controls": 0}
    check_limits(Workload(**usual), LIMITS)
    with pytest.raises(InvalidRequest, match=says):
        check_limits(Workload(**(usual | change)), LIMITS)


def test_a_model_names_its_own_tensors() -> None:
    with pytest.raises(InvalidRequest, match="timesteps: 11"):
        check_limits(Workload(width=8, height=8, images=1, steps=11), LIMITS, steps_field="timesteps")
    with pytest.raises(InvalidRequest, match="state: 3"):
        check_limits(Workload(width=8, height=8, images=3), LIMITS, images_field="state")


def test_no_more_controlnets_than_are_open_at_the_same_time(tiny: Any) -> None:
    def plan(mib: int) -> NetworkFile:
        return NetworkFile(path="p", key="0" * 64, files={"p": FileDigest(sha256="0" * 64, size=mib << 20)})

    update: dict[str, Any] = {
        "controlnets": {"pose": "pose", "edges": "canny", "depth": "depth"},
        "execution": Execution(resident_controlnets=2),
        "networks": {"controlnet.pose": plan(2400), "controlnet_context.pose": plan(60)},
    }
    manifest = tiny.manifest.model_copy(update=update)
    check_resident(["pose", "depth", "pose", "depth"], manifest)
    with pytest.raises(InvalidRequest) as refused:
        check_resident(["pose", "depth", "edges"], manifest)
    assert str(refused.value) == (
        "controls: 3 ControlNets at once: depth 0.0 MiB, edges 0.0 MiB, pose 2460.0 MiB; "
        "allowed: at most 2 of the 3 at once (execution.resident_controlnets)"
    )
    everything = manifest.model_copy(update={"execution": Execution()})
    check_resident(["pose", "depth", "edges"], everything)


def test_sizes_are_the_built_ones() -> None:
    check_size((8, 16), ((8, 16), (16, 8)), field="width")
    with pytest.raises(InvalidRequest, match="width: 16x16 is not built; allowed: 8x16, 16x8"):
        check_size((16, 16), ((8, 16), (16, 8)), field="width")


@pytest.mark.parametrize(
    ("begin", "end"), [(0.5, 0.5), (-0.1, 1), (0, 1.1), (float("nan"), 1), (0, float("nan"))]
)
def test_windows_have_steps_inside(begin: float, end: float) -> None:
    check_window(0, 1, field="window")
    with pytest.raises(InvalidRequest, match=r"window: .* allowed: 0 to 1, less than end"):
        check_window(begin, end, field="window")
