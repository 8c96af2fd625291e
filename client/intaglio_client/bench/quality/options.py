"""The options that change the picture, as settings beside no option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.contract.methods import METHODS
from intaglio.errors import ConfigError
from intaglio_client.tune.grid import drawable, lora_settings, most_steps
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import Setting, named_setting

__all__ = ["NO_OPTION", "OPTIONS", "few_step_settings", "possible"]

NO_OPTION: Final = named_setting({}, name="no option")
"""As the deployment draws by default."""
OPTIONS: Final = tuple(
    named_setting(inputs, name=f"steps {inputs['steps']}" if set(inputs) == {"steps"} else "")
    for inputs in (
        {"steps": 10},
        {"steps": 15},
        {"steps": 30},
        {"scheduler": "dpmpp_2m_karras", "steps": 10},
        {"scheduler": "dpmpp_2m_karras", "steps": 15},
        {"scheduler": "unipc", "steps": 10},
        {"scheduler": "euler_a", "steps": 20},
        {"control_every": 2},
        {"control_every": 3},
        {"guidance_end": 0.5},
        {"guidance_begin": 0.1, "guidance_end": 0.8},
        {"control_guidance_end": 0.5},
        {"guidance_end": 0.5, "control_guidance_end": 0.5},
        {"sparse_begin": 0.3, "sparse_every": 2},
    )
)


def few_step_settings(deployment: Deployment) -> tuple[Setting, ...]:
    """A setting for every LoRA of a few-step method in the registry, with the guidance that the method is
    made for: that of a scene is for many steps.
    """
    if deployment.registry is None:
        return ()
    entries = load_registry(deployment.registry).loras
    found = []
    for setting in lora_settings(deployment):
        method = entries[setting.inputs["loras"][0]["id"]].method
        assert method is not None  # `lora_settings` gives no other
        values = METHODS[method].values
        guidance = {name: values[name] for name in ("guidance_scale",) if name in values}
        found.append(named_setting({**setting.inputs, **guidance}, name=setting.name, apart=setting.apart))
    return tuple(found)


def possible(
    deployment: Deployment, settings: Sequence[Setting], scenes: Sequence[Scene]
) -> tuple[list[Setting], list[str]]:
    """No option and those of `settings` that the deployment can draw of `scenes`; a line for each other one.

    Raises:
        ConfigError: two settings have one name, or the deployment cannot draw the scenes with its defaults.
    """
    controls = max(len(scene.controls) for scene in scenes)
    pixels = max(scene.width * scene.height for scene in scenes)
    most = most_steps(deployment, controls=controls, pixels=pixels)
    kept, left_out = drawable(deployment, (NO_OPTION, *settings), controls=controls, most=most)
    if NO_OPTION not in kept:
        raise ConfigError(left_out[0])
    return kept, left_out
