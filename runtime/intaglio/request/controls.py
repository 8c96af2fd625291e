"""Which controls a request may ask for, and which detectors make their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intaglio.contract.detectors import AUTO, NO_DETECTOR, detector_named
from intaglio.errors import InvalidRequest
from intaglio.request.limits import check_window
from intaglio.request.request import ControlRequest, Request

__all__ = ["check_controls", "with_detectors"]


def check_controls(request: Request, controlnets: Mapping[str, str]) -> None:
    """`controlnets` is the build's: id of a control -> type of its control image.

    Raises:
        InvalidRequest: an unknown control, no image or pose or both, a window without steps, an image that
            no control uses, or a `control_every` without controls.
    """
    if request.control_every > 1 and not request.controls:
        problem = f"{request.control_every}, but there are no controls"
        raise InvalidRequest("control_every", problem, allowed="1 or absent, or controls beside it")
    for index, control in enumerate(request.controls):
        field = f"controls[{index}]"
        _check_type(control, controlnets, field=field)
        _check_image(control, images=len(request.images), field=field)
        check_window(control.begin, control.end, field=f"{field}.begin")
        _check_making(control, field=field)
    used = {control.image for control in request.controls}
    if unused := [index for index in range(len(request.images)) if index not in used]:
        allowed = "images that controls refer to by index"
        raise InvalidRequest(f"images[{unused[0]}]", "no control refers to it", allowed=allowed)


def with_detectors(
    controls: Sequence[ControlRequest], controlnets: Mapping[str, str], detectors: Mapping[str, str]
) -> tuple[ControlRequest, ...]:
    """`controls`, each with the id of the detector that makes its map, or with `none`.

    `auto` becomes the detector of the control's own type. Both mappings are ids to types of map. A control
    whose own type is unknown stays as it is, since `check_controls` refuses it.

    Raises:
        InvalidRequest: this deployment has no such detector.
    """
    return tuple(
        _with_detector(control, controlnets, detectors, field=f"controls[{index}].preprocess")
        for index, control in enumerate(controls)
    )


def _with_detector(
    control: ControlRequest, controlnets: Mapping[str, str], detectors: Mapping[str, str], *, field: str
) -> ControlRequest:
    is_known = control.type in controlnets or control.type in controlnets.values()
    if control.preprocess == NO_DETECTOR or control.pose is not None or not is_known:
        return control
    wanted = control.preprocess
    if wanted == AUTO:
        wanted = controlnets.get(control.type, control.type)
    name = detector_named(wanted, detectors, field=field, also=(NO_DETECTOR,))
    return control.model_copy(update={"preprocess": name})


def _check_type(control: ControlRequest, controlnets: Mapping[str, str], *, field: str) -> None:
    known = dict.fromkeys([*controlnets, *controlnets.values()])
    if control.type not in known:
        allowed = ", ".join(known) or "none: this deployment has no ControlNets"
        raise InvalidRequest(f"{field}.type", f"{control.type!r} is unknown", allowed=allowed)


def _check_image(control: ControlRequest, *, images: int, field: str) -> None:
    """The control has an image or a pose; an image is one of the request's `images`."""
    if (control.image is None) == (control.pose is None):
        allowed = "exactly one of image (index into images) and pose (id)"
        raise InvalidRequest(field, "needs an image or a pose", allowed=allowed)
    if control.image is not None and control.image >= images:
        allowed = f"0 to {images - 1}" if images else "no index: images is absent"
        raise InvalidRequest(f"{field}.image", f"{control.image} is out of range", allowed=allowed)


def _check_making(control: ControlRequest, *, field: str) -> None:
    """Whether what makes the map of its source fits the source."""
    if control.pose is not None:
        drawn = "a pose is drawn as a map, in the size of the picture"
        for key, default in (("preprocess", NO_DETECTOR), ("resize", "stretch"), ("palette", None)):
            value = getattr(control, key)
            if value != default:
                problem = f"{value!r} with a pose"
                raise InvalidRequest(f"{field}.{key}", problem, allowed=f"{default or 'absent'}: {drawn}")
    if control.palette is not None and control.preprocess != NO_DETECTOR:
        problem = f"{control.palette!r} with preprocess {control.preprocess!r}"
        raise InvalidRequest(f"{field}.palette", problem, allowed="a palette of a map, with preprocess none")
