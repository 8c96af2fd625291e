"""Which controls a request may ask for."""

from __future__ import annotations

from collections.abc import Mapping

from intaglio.errors import InvalidRequest
from intaglio.request.limits import check_window
from intaglio.request.request import ControlRequest, Request

__all__ = ["check_controls"]


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
        for key, default in (("preprocess", "none"), ("resize", "stretch"), ("palette", None)):
            value = getattr(control, key)
            if value != default:
                problem = f"{value!r} with a pose"
                raise InvalidRequest(f"{field}.{key}", problem, allowed=f"{default or 'absent'}: {drawn}")
    if control.palette is not None and control.preprocess != "none":
        problem = f"{control.palette!r} with preprocess {control.preprocess!r}"
        raise InvalidRequest(f"{field}.palette", problem, allowed="a palette of a map, with preprocess none")
