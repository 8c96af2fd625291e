"""What a LoRA does to a layer: against peft, against the papers' formulas, and against LyCORIS' norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import torch

from intaglio.loras.layers import Layer, merged


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_are_pefts(kind: str, dora: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8) if kind == "linear" else torch.nn.Conv2d(8, 8, 3))
    before = model[0].weight.detach().numpy().copy()
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], use_dora=dora)
    wrapped: Any = peft.get_peft_model(model, config)  # type: ignore[arg-type]
    layer = wrapped.base_model.model[0]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    parts = {"down": layer.lora_A["default"].weight, "up": layer.lora_B["default"].weight}
    if dora:
        torch.nn.init.uniform_(layer.lora_magnitude_vector["default"].weight, 0.5, 2)
        parts["magnitude"] = layer.lora_magnitude_vector["default"].weight
    arrays: Any = {name: values.detach().numpy().copy() for name, values in parts.items()}
    theirs = wrapped.merge_and_unload()[0].weight.detach().numpy()
    ours = Layer(arrays, alpha=3.0)
    ours.check("x", "layer", shape=before.shape)
    np.testing.assert_allclose(ours.applied(before, 1.0), theirs, atol=2e-6)
    assert not np.allclose(before, theirs, atol=1e-2)


@pytest.mark.parametrize("kind", ["linear", "conv", "conv with a core"])
@pytest.mark.parametrize("method", ["LoHa", "LoKr"])
def test_loha_and_lokr_are_pefts(method: str, kind: str) -> None:
    torch.manual_seed(0)
    core = {"use_effective_conv2d": kind == "conv with a core"}
    config = getattr(peft, f"{method}Config")(r=2, alpha=3, target_modules=["0"], init_weights=False, **core)
    # Large enough that LoKr factors its second matrix.
    linear = torch.nn.Linear(48, 64) if kind == "linear" else torch.nn.Conv2d(48, 64, 3)
    wrapped: Any = peft.get_peft_model(torch.nn.Sequential(linear), config)  # type: ignore[arg-type]
    layer = wrapped.base_model.model[0]
    prefix = "hada" if method == "LoHa" else "lokr"
    arrays: Any = {
        name.removesuffix(".default"): values.detach().numpy()
        for name, values in layer.named_parameters()
        if name.startswith(prefix)
    }
    ours, shape = Layer(arrays, alpha=3.0), tuple(linear.weight.shape)
    ours.check("x", "layer", shape=shape)
    assert ours.method == method
    theirs = layer.get_delta_weight("default").detach().numpy()
    np.testing.assert_allclose(
        ours.change(np.zeros(shape, np.float32), 1.0), theirs, atol=1e-6 * np.abs(theirs).max()
    )


def test_locon_with_a_core_is_the_papers_formula() -> None:
    down, core, up = normal(2, 4, 1, 1), normal(2, 2, 3, 3), normal(8, 2, 1, 1)
    expected = sum(
        up[:, a, 0, 0][:, None, None, None] * core[a, b] * down[b, :, 0, 0][None, :, None, None]
        for a in range(2)
        for b in range(2)
    )
    layer = Layer({"down": down, "mid": core, "up": up})
    np.testing.assert_allclose(layer.update(), expected, rtol=1e-5, atol=1e-6)
    layer.check("x", "conv_in", shape=(8, 4, 3, 3))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3, 3)])
@pytest.mark.parametrize("side", ["output", "input"])
def test_the_shape_of_a_magnitude_says_which_norm(shape: tuple[int, ...], side: str) -> None:
    """Of LyCORIS, whose `wd_on_output` chooses; the layer is square, so that sizes do not tell."""
    weights, magnitude = normal(*shape), np.abs(normal(8)) + 0.5
    axis = 0 if side == "output" else 1
    stored = magnitude.reshape([8 if other == axis else 1 for other in range(len(shape))])
    parts: Any = {"down": normal(2, *shape[1:]), "up": normal(8, 2, *(1,) * (len(shape) - 2), seed=1)}
    layer = Layer({**parts, "dora_scale": stored}, alpha=1.0)
    layer.check("x", "layer", shape=shape)
    exact = weights.astype(np.float64) + 0.7 * 0.5 * Layer(parts).update()
    lines = np.moveaxis(exact, axis, 0)
    expected = [m * line / np.linalg.norm(line) for m, line in zip(magnitude, lines, strict=True)]
    found = np.moveaxis(layer.applied(weights, 0.7), axis, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pefts_magnitude_is_of_outputs() -> None:
    """One axis for matrices, [1, o, 1, 1] for kernels."""
    parts: Any = {"down": normal(2, 8, 3, 3), "up": normal(8, 2, 1, 1)}
    weights, values = normal(8, 8, 3, 3), np.abs(normal(8)) + 0.5
    found = [
        Layer({**parts, name: values.reshape(shape)}).applied(weights, 1.0)
        for name, shape in (("magnitude", (1, 8, 1, 1)), ("magnitude", (8,)), ("dora_scale", (8, 1, 1, 1)))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    other = Layer({**parts, "dora_scale": values.reshape(1, 8, 1, 1)}).applied(weights, 1.0)
    assert not np.allclose(found[0], other, atol=1e-2)


@pytest.mark.parametrize("method", ["LoHa", "LoKr"])
def test_dora_of_loha_and_lokr(method: str) -> None:
    parts: Any = {
        "LoHa": {
            f"hada_w{n}_{side}": normal(8, 2) if side == "a" else normal(2, 8)
            for n in (1, 2)
            for side in "ab"
        },
        "LoKr": {"lokr_w1": normal(2, 2), "lokr_w2": normal(4, 4)},
    }[method]
    plain, weights, magnitude = Layer(parts), normal(8, 8, seed=3), np.abs(normal(8, 1)) + 0.5
    layer = Layer({**parts, "dora_scale": magnitude})
    layer.check("x", "layer", shape=(8, 8))
    assert layer.method == f"{method} with DoRA"
    changed = plain.applied(weights, 0.5)
    expected = magnitude * changed / np.linalg.norm(changed, axis=1, keepdims=True)
    np.testing.assert_allclose(layer.applied(weights, 0.5), expected, rtol=1e-5, atol=1e-5)


def test_scale_of_a_lokr_that_is_not_factored() -> None:
    """LyCORIS writes an alpha and does not use it; peft uses that of its configuration."""
    parts: Any = {"lokr_w1": normal(2, 2), "lokr_w2": normal(4, 4)}
    assert Layer(parts, alpha=16.0).strength == 1
    assert Layer(parts, scale=0.5).strength == 0.5
    assert Layer(parts).rank == 4


def test_what_is_zero_stays_zero_and_what_is_too_large_is_seen() -> None:
    parts: Any = {
        "down": normal(2, 8),
        "up": np.zeros((8, 2), np.float32),
        "magnitude": np.ones(8, np.float32),
    }
    weights = normal(8, 8)
    weights[3] = 0
    found = Layer(parts).applied(weights, 1.0)
    assert not found[3].any()
    assert np.isfinite(found).all()
    assert not np.isfinite(Layer(parts).applied(weights * np.float32(1e25), 1.0)).all()
    large: Any = {"down": np.full((1, 8), 1e30, np.float32), "up": np.full((8, 1), 1e30, np.float32)}
    assert not np.isfinite(Layer(large).applied(weights, 1.0)).all()


def test_several_add_changes_of_the_pristine_weights() -> None:
    """In any order, DoRA among them."""
    weights = normal(8, 8)
    layers = [
        (Layer({"down": normal(2, 8, seed=n), "up": normal(8, 2, seed=n), **extra}, alpha=1.0), weight)
        for n, weight, extra in ((1, 0.5, {}), (2, -1.0, {"magnitude": np.ones(8, np.float32)}), (3, 1.5, {}))
    ]
    before = weights.copy()
    found = merged(weights, layers)
    np.testing.assert_array_equal(weights, before)
    np.testing.assert_allclose(found, merged(weights, layers[::-1]), atol=1e-5)
    alone = sum(layer.applied(weights, weight) - weights for layer, weight in layers)
    np.testing.assert_allclose(found, weights + alone, atol=1e-5)
    np.testing.assert_array_equal(merged(weights, []), weights)
