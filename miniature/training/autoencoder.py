"""The autoencoder: trained on the world first, its decoder once more on what the LoRAs will draw.

`B` images, `h = w = 32` latents.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from miniature import architecture
from miniature.styles import LESSONS
from miniature.training.loop import Run, save_atomically
from miniature.training.settings import Settings, device, half_precision

__all__ = [
    "encode_all",
    "load_autoencoder",
    "recoloured",
    "rendered",
    "train_autoencoder",
    "train_decoder",
]

_KL_WEIGHT: Final = 1e-6
_LATENT_VALUES: Final = 4096
"""Of one picture: the weight of the divergence is a value's."""
_LATENT_NOISE: Final = 0.02
"""Standard deviation, unscaled latents: the decoder is given what the UNet makes, which has errors."""


def rendered(name: str, settings: Settings) -> Tensor:
    """[N, H, W, 3] uint8 of one training set, on the device."""
    return torch.from_numpy(np.load(settings.work / "data" / name / "images.npy")).to(device())


def pixels(images: Tensor) -> Tensor:
    """[B, 3, H, W] of -1..1 from uint8 [B, H, W, 3]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count, 3, H, W] of -1..1, drawn from [N, H, W, 3] uint8."""
    rows = torch.randint(len(images), (count,), generator=generator, device=device())
    return pixels(images[rows])


def reconstruction_error(decoded: Tensor, x: Tensor) -> Tensor:
    """Squared error, and a little of the absolute."""
    error: Tensor = functional.mse_loss(decoded, x) + 0.05 * functional.l1_loss(decoded, x)
    return error


def train_autoencoder(settings: Settings) -> None:
    """AutoencoderKL on the world, with a little KL. The last of the data give the scale of its latents."""
    torch.manual_seed(1)
    model: Any = architecture.make_autoencoder()
    model.to(device(), memory_format=torch.channels_last)
    world = rendered("base", settings)
    if settings.compile:
        model.encoder.compile()
        model.decoder.compile()
    run = Run("autoencoder", model, settings)

    def loss_of_step(generator: torch.Generator) -> Tensor:
        x = draw(world, settings.batch["autoencoder"], generator)
        x = x.contiguous(memory_format=torch.channels_last)
        with half_precision():
            posterior = model.encode(x).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator, device=device())
            decoded = model.decode(mean + torch.exp(0.5 * log_variance) * noise).sample.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss: Tensor = reconstruction_error(decoded, x) + _KL_WEIGHT * _LATENT_VALUES * divergence
        return loss

    model.load_state_dict(run.train(loss_of_step))
    scale = float(1 / encode_all(model, world[-4096:]).float().std())
    quality = reconstruction_psnr(model, world[-512:])
    print(f"autoencoder: scaling factor {scale:.5f}, PSNR world {quality:.2f} dB")
    save_autoencoder(model, scale, "autoencoder", settings)


@torch.no_grad()
def encode_all(model: Any, images: Tensor, batch: int = 256) -> Tensor:
    """[N, 4, h, w] posterior means, unscaled, half precision."""
    chunks = []
    for start in range(0, len(images), batch):
        with half_precision():
            chunks.append(model.encode(pixels(images[start : start + batch])).latent_dist.mean.half())
    return torch.cat(chunks)


@torch.no_grad()
def reconstruction_psnr(model: Any, images: Tensor) -> float:
    """Mean over images of the PSNR in dB of 8-bit pictures."""
    values = []
    for start in range(0, len(images), 64):
        x = pixels(images[start : start + 64])
        y = model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        error = (255 / 2 * (x - y)).square().mean((1, 2, 3))
        values.append(10 * torch.log10(255**2 / error))
    return float(torch.cat(values).mean())


def save_autoencoder(model: Any, scale: float, stage: str, settings: Settings) -> None:
    """Weights and scaling factor, as `stage` leaves them."""
    state = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    save_atomically(state | {"scaling_factor": torch.tensor([scale])}, settings.weights(stage))


def load_autoencoder(stage: str, settings: Settings) -> Any:
    """The autoencoder that `stage` left, its scaling factor in the config."""
    state = load_file(settings.weights(stage))
    scale = float(state.pop("scaling_factor"))
    model: Any = architecture.make_autoencoder()
    model.load_state_dict(state)
    model.register_to_config(scaling_factor=scale)
    return model.to(device()).eval()


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] of -1..1 in other colours.

    Each channel of each picture has a gain and an offset of its own.
    """
    gain, offset = torch.rand((2, len(x), 3, 1, 1), generator=generator, device=x.device)
    changed: Tensor = x * (0.4 + 0.8 * gain) + 0.8 * (offset - 0.5)
    return changed.clamp(-1, 1)


def train_decoder(settings: Settings) -> None:
    """The decoder alone: on the world, on the world in other colours, and on what the LoRAs will draw.

    Before this it has seen eight places by day, and would draw a meadow as a desert whatever the UNet had
    learned. The encoder stays as it is, and so do the latents that the base model learned.
    """
    model = load_autoencoder("autoencoder", settings)
    model.to(memory_format=torch.channels_last)
    world = rendered("base", settings)
    taught = {name: rendered(name, settings) for name in LESSONS}
    lessons = torch.cat(list(taught.values()))
    trained = nn.ModuleList([model.decoder, model.post_quant_conv])
    if settings.compile:
        model.encoder.compile()
        model.decoder.compile()

    def loss_of_step(generator: torch.Generator) -> Tensor:
        odd = settings.recoloured_in_batch
        plain = draw(world, settings.batch["decoder"] - settings.lessons_in_batch, generator)
        other = recoloured(plain[:odd], generator)
        x = torch.cat([other, plain[odd:], draw(lessons, settings.lessons_in_batch, generator)])
        x = x.contiguous(memory_format=torch.channels_last)
        with half_precision():
            with torch.no_grad():
                latents = model.encode(x).latent_dist.mean
            noise = torch.randn(latents.shape, generator=generator, device=device())
            decoded = model.decode(latents + _LATENT_NOISE * noise).sample.float()
        return reconstruction_error(decoded, x)

    trained.load_state_dict(Run("decoder", trained, settings).train(loss_of_step))
    for name, images in {"world": world, **taught}.items():
        print(f"decoder: {name} {reconstruction_psnr(model, images[-128:]):.2f} dB")
    save_autoencoder(model, model.config.scaling_factor, "decoder", settings)
