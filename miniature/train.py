"""Retrain the whole miniature from fixed seeds, in stages that can be run apart and resumed.

    python -m miniature.train                       # everything
    python -m miniature.train data autoencoder      # some stages

`B` images; `h = w = 32` latents. Work files lie in build/miniature: arrays under data/, weights under train/.
A stage whose output is there, and not older than the stage before left its own, is not run again; the others
continue from their last checkpoint. Autoencoder, text encoders and base UNet are trained here, on the
miniature's world only; ControlNets and LoRAs by `intaglio train`.
"""

# ruff: noqa: PLC0415  (diffusers and transformers are imported by the stages that use them; rendering data needs neither)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from miniature import architecture, dataset
from miniature.labels import CLASS_COUNTS
from miniature.styles import LESSONS

WORK = Path("build/miniature")
MODEL = Path(__file__).parent / "model"
STEPS = {"autoencoder": 3400, "base": 6500, "refine": 6800, "decoder": 4500}
LEARNING_RATE = {"autoencoder": 1.5e-3, "base": 8e-4, "refine": 6e-4, "decoder": 7e-4}
BATCH = {"autoencoder": 64, "base": 320, "decoder": 64}
COUNTS = {"base": 48000, "controls": 10000, "lessons": 1500}
LESSONS_IN_BATCH, RECOLOURED_IN_BATCH = 16, 8  # of the decoder's 64
LATENT_NOISE = 0.02  # standard deviation, unscaled latents: the decoder is given what the UNet makes, not what the encoder would
CHECKPOINT_EVERY = {"autoencoder": 1500, "base": 1500, "refine": 1500, "decoder": 1500}
ADAPTER_OPTIONS: list[str] = []  # of `intaglio train`, for a trial
EMA_DECAY = 0.9993
KL_WEIGHT = 1e-6
MIN_SNR_GAMMA = 5.0  # arXiv 2303.09556
TEXT_TASK_WEIGHT = 0.1
PRECISION = torch.bfloat16
COMPILE = (
    torch.cuda.is_available()
)  # fuses the norms and activations, which is most of the time in networks this small

State = dict[str, Tensor]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision() -> torch.autocast:
    """Autocast on the GPU; few CPUs gain from it."""
    return torch.autocast(device().type, PRECISION, enabled=device().type == "cuda")


def save_atomically(state: State, path: Path) -> None:
    """Write safetensors under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, temporary, metadata={"format": "pt"}
    )
    temporary.replace(path)


class Averaged:
    """Exponential moving average of a module's parameters, on the module's device."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.average = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the current parameters in; early steps weigh more."""
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, list(self.module.parameters()), 1 - decay)

    @torch.no_grad()
    def state(self) -> State:
        """The averaged state dict."""
        averaged = dict(zip((name for name, _ in self.module.named_parameters()), self.average, strict=True))
        return {name: averaged.get(name, value).clone() for name, value in self.module.state_dict().items()}


class Run:
    """One training run: optimizer with warm-up and cosine decay, moving average, checkpoints, progress bar."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module, self.steps = name, module, STEPS[name]
        self.path = WORK / "train" / f"{name}.checkpoint"
        self.average = Averaged(module)
        fused = device().type == "cuda"
        self.optimizer = torch.optim.AdamW(
            module.parameters(), LEARNING_RATE[name], betas=(0.9, 0.99), weight_decay=0.01, fused=fused
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._share)
        self.begin = 0
        if self.path.exists():
            saved = torch.load(self.path, map_location=device(), weights_only=True)
            module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.average.average = saved["average"]
            self.begin = saved["step"]

    def _share(self, step: int) -> float:
        return float(
            min(1, (step + 1) / min(300, self.steps / 10))
            * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(step / self.steps, 1))))
        )

    def _save(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        saved = {
            "module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "average": self.average.average, "step": step,
        }  # fmt: skip
        temporary = self.path.with_suffix(".partial")
        torch.save(saved, temporary)
        temporary.replace(self.path)

    def train(self, loss_of_step: Callable[[torch.Generator], Tensor]) -> State:
        """Step until done; returns the averaged weights. Step s draws from a generator seeded with s, so a
        resumed run repeats.
        """
        loss_column = TextColumn("loss {task.fields[loss]:.4f}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            loss_column,
            TimeRemainingColumn(),
        )
        generator = torch.Generator(device())
        with Progress(*columns, refresh_per_second=0.5) as progress:
            bar = progress.add_task(self.name, total=self.steps, completed=self.begin, loss=float("nan"))
            for step in range(self.begin, self.steps):
                generator.manual_seed(step)
                loss = loss_of_step(generator)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                self.average.update(step)
                if step % 50 == 0:
                    progress.update(bar, completed=step + 1, loss=loss.item())
                if (step + 1) % CHECKPOINT_EVERY[self.name] == 0:
                    self._save(step + 1)
        return self.average.state()


def make_data() -> None:
    """Render every training set."""
    data = WORK / "data"
    dataset.write_arrays(data / "base", COUNTS["base"], labels=True)
    dataset.write_arrays(data / "controls", COUNTS["controls"], controls=True)
    dataset.write_lessons(data, COUNTS["lessons"])


def rendered(name: str) -> Tensor:
    """[N, H, W, 3] uint8 of one training set, on the device."""
    return torch.from_numpy(np.load(WORK / "data" / name / "images.npy")).to(device())


def pixels(images: Tensor) -> Tensor:
    """[B, 3, H, W] of -1..1 from uint8 [B, H, W, 3]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count, 3, H, W] of -1..1, drawn from [N, H, W, 3] uint8."""
    return pixels(images[torch.randint(len(images), (count,), generator=generator, device=device())])


def reconstruction_error(decoded: Tensor, x: Tensor) -> Tensor:
    """Squared error, and a little of the absolute."""
    error: Tensor = functional.mse_loss(decoded, x) + 0.05 * functional.l1_loss(decoded, x)
    return error


def train_autoencoder() -> None:
    """AutoencoderKL on the world, with a whisper of KL; the last of the data say its scale."""
    torch.manual_seed(1)
    model: Any = architecture.make_autoencoder()
    model.to(device(), memory_format=torch.channels_last)
    world = rendered("base")
    if COMPILE:
        model.encoder.compile()
        model.decoder.compile()
    run = Run("autoencoder", model)

    def loss_of_step(generator: torch.Generator) -> Tensor:
        x = draw(world, BATCH["autoencoder"], generator).contiguous(memory_format=torch.channels_last)
        with half_precision():
            posterior = model.encode(x).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator, device=device())
            decoded = model.decode(mean + torch.exp(0.5 * log_variance) * noise).sample.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss: Tensor = reconstruction_error(decoded, x) + KL_WEIGHT * 4096 * divergence
        return loss

    model.load_state_dict(run.train(loss_of_step))
    scale = float(1 / encode_all(model, world[-4096:]).float().std())
    print(
        f"autoencoder: scaling factor {scale:.5f}, PSNR world {reconstruction_psnr(model, world[-512:]):.2f} dB"
    )
    save_autoencoder(model, scale, "autoencoder")


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


def save_autoencoder(model: Any, scale: float, name: str) -> None:
    """Weights and scaling factor, as stage `name` leaves them."""
    state = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    save_atomically(state | {"scaling_factor": torch.tensor([scale])}, WORK / "train" / f"{name}.safetensors")


def load_autoencoder(name: str = "autoencoder") -> Any:
    """The autoencoder that stage `name` left, its scaling factor in the config."""
    state = load_file(WORK / "train" / f"{name}.safetensors")
    scale = float(state.pop("scaling_factor"))
    model: Any = architecture.make_autoencoder()
    model.load_state_dict(state)
    model.register_to_config(scaling_factor=scale)
    return model.to(device()).eval()


def tokenize(captions: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Token ids [N, C, 77] of both tokenizers."""
    from transformers import CLIPTokenizer

    ids = []
    for folder in ("tokenizer", "tokenizer_2"):
        tokenizer = CLIPTokenizer.from_pretrained(str(MODEL / folder))
        flat = [text for texts in captions for text in texts]
        encoded = tokenizer(
            flat, padding="max_length", max_length=architecture.TOKENS, truncation=True, return_tensors="np"
        )["input_ids"]
        ids.append(torch.from_numpy(encoded.astype(np.int64)).reshape(len(captions), -1, architecture.TOKENS))
    return ids[0], ids[1]


class BaseModel(nn.Module):
    """Both text encoders, the UNet, and the text encoders' own small task: name the scene's attributes.

    The task stands in for CLIP's pre-training: it gives the token states and the pooled embedding their
    meaning early.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = architecture.make_text_encoders()
        self.unet: Any = architecture.make_unet()
        width = architecture.TEXT_WIDTHS[0] + architecture.POOLED_WIDTH
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in CLASS_COUNTS)

    def encode(self, ids: Tensor, ids_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Context [B, 77, C], pooled [B, P], and the task's input [B, .] from token ids [B, 77]."""
        first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(ids_2, output_hidden_states=True)
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        end = ids.eq(architecture.END_TOKEN).int().argmax(-1)
        summary = first.hidden_states[-2][torch.arange(len(ids), device=ids.device), end]
        return context, second.text_embeds, torch.cat([summary, second.text_embeds], -1)


def canonical(state: State) -> State:
    """transformers 5 dropped `text_model.` from the CLIP text models' names; released SDXL weights, and ours,
    have it.
    """
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        bare = part in ("text_encoder", "text_encoder_2") and rest.startswith(
            ("embeddings.", "encoder.", "final_layer_norm.")
        )
        renamed[f"{part}.text_model.{rest}" if bare else name] = tensor
    return renamed


def load_base(name: str) -> BaseModel:
    """The text encoders and UNet that stage `name` left."""
    state = load_file(WORK / "train" / f"{name}.safetensors")
    model = BaseModel()
    for own in model.state_dict():
        if own not in state and own.replace(".", ".text_model.", 1) in state:
            state[own] = state.pop(own.replace(".", ".text_model.", 1))
    wrong = model.load_state_dict(state, strict=False)
    if wrong.unexpected_keys or any(not key.startswith("heads.") for key in wrong.missing_keys):
        raise SystemExit(f"{name}.safetensors does not fit this architecture: {wrong}")
    return model


def train_base(name: str = "base", start: str | None = None) -> None:
    """Text encoders and UNet together, epsilon prediction, min-SNR weights.

    1 caption in 20 is empty and 1 in 20 has its embeddings zeroed (force_zeros_for_empty_prompt). `start`
    names the stage to go on from.
    """
    out = WORK / "train" / f"{name}.safetensors"
    autoencoder = load_autoencoder()
    scale = autoencoder.config.scaling_factor
    latents = encode_all(autoencoder, rendered("base")).float().mul_(scale).half()
    captions = json.loads((WORK / "data" / "base" / "captions.json").read_text())
    labels = torch.from_numpy(np.load(WORK / "data" / "base" / "labels.npy")).to(device())
    ids, ids_2 = (tensor.to(device()) for tensor in tokenize(captions))
    empty, empty_2 = (tensor[0].to(device()) for tensor in tokenize([[""]]))
    scheduler: Any = architecture.make_scheduler()
    alphas = scheduler.alphas_cumprod.to(device())
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=MIN_SNR_GAMMA) / snr
    side = architecture.IMAGE_SIZE
    time_ids = torch.tensor([[side, side, 0, 0, side, side]], device=device()).float()
    torch.manual_seed(2)
    model = (load_base(start) if start else BaseModel()).to(device())
    if COMPILE:
        model.unet.compile()
    batch = BATCH["base"]

    def loss_of_step(generator: torch.Generator) -> Tensor:
        def draw(high: int) -> Tensor:
            return torch.randint(high, (batch,), generator=generator, device=device())

        rows, which, chance = draw(len(latents)), draw(ids.shape[1]), draw(20)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator, device=device())
        t = draw(len(alphas))
        noisy = alphas[t].sqrt().view(-1, 1, 1, 1) * clean + (1 - alphas[t]).sqrt().view(-1, 1, 1, 1) * noise
        blank = (chance == 0)[:, None]
        with half_precision():
            read, read_2 = (
                torch.where(blank, empty, ids[rows, which]),
                torch.where(blank, empty_2, ids_2[rows, which]),
            )
            context, pooled, summary = model.encode(read, read_2)
            kept = (chance != 1).float()
            added = {"text_embeds": pooled * kept[:, None], "time_ids": time_ids.expand(batch, -1)}
            predicted = model.unet(
                noisy, t, context * kept[:, None, None], added_cond_kwargs=added
            ).sample.float()
            logits = [head(summary).float() for head in model.heads]
        task = sum(functional.cross_entropy(one, labels[rows, column]) for column, one in enumerate(logits))
        error = (predicted - noise).square().mean((1, 2, 3))
        loss: Tensor = (error * weights[t]).mean() + TEXT_TASK_WEIGHT * task / len(logits)
        return loss

    state = canonical(Run(name, model).train(loss_of_step))
    save_atomically({key: tensor for key, tensor in state.items() if not key.startswith("heads.")}, out)


def refine_base() -> None:
    """A second cycle of the learning rate from where the first ended: limbs and faces settle here."""
    train_base("refine", start="base")


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] of -1..1 in other colours: each channel of each picture with a gain and an offset of its
    own.
    """
    gain, offset = torch.rand((2, len(x), 3, 1, 1), generator=generator, device=x.device)
    changed: Tensor = x * (0.4 + 0.8 * gain) + 0.8 * (offset - 0.5)
    return changed.clamp(-1, 1)


def train_decoder() -> None:
    """The decoder alone, on what the LoRAs will paint beside the world's own pictures, and on the world in
    other colours.

    Until here it has seen eight places by day and would paint a meadow as a desert, whatever the UNet had
    learned. The encoder stays, so the base model's latents do.
    """
    model = load_autoencoder()
    model.to(memory_format=torch.channels_last)
    world, lessons = rendered("base"), torch.cat([rendered(name) for name in LESSONS])
    trained = nn.ModuleList([model.decoder, model.post_quant_conv])
    if COMPILE:
        model.encoder.compile()
        model.decoder.compile()

    def loss_of_step(generator: torch.Generator) -> Tensor:
        plain = draw(world, BATCH["decoder"] - LESSONS_IN_BATCH, generator)
        odd = recoloured(plain[:RECOLOURED_IN_BATCH], generator)
        x = torch.cat([odd, plain[RECOLOURED_IN_BATCH:], draw(lessons, LESSONS_IN_BATCH, generator)])
        x = x.contiguous(memory_format=torch.channels_last)
        with half_precision():
            with torch.no_grad():
                latents = model.encode(x).latent_dist.mean
            noise = torch.randn(latents.shape, generator=generator, device=device())
            decoded = model.decode(latents + LATENT_NOISE * noise).sample.float()
        return reconstruction_error(decoded, x)

    trained.load_state_dict(Run("decoder", trained).train(loss_of_step))
    for name, images in {"world": world, **{name: rendered(name) for name in LESSONS}}.items():
        print(f"decoder: {name} {reconstruction_psnr(model, images[-128:]):.2f} dB")
    save_autoencoder(model, model.config.scaling_factor, "decoder")


def assemble() -> None:
    """Write the trained parts into the diffusers folder, fp16 safetensors; its tokenizers and
    model_index.json are there.
    """
    model = load_base("refine")
    parts: dict[str, Any] = {
        "vae": load_autoencoder("decoder").cpu(), "text_encoder": model.text_encoder, "text_encoder_2": model.text_encoder_2,
        "unet": model.unet,
    }  # fmt: skip
    for name, part in parts.items():
        part.half().save_pretrained(MODEL / name, safe_serialization=True)
    scheduler: Any = architecture.make_scheduler()
    scheduler.save_pretrained(MODEL / "scheduler")
    for folder in ("text_encoder", "text_encoder_2"):
        weights = MODEL / folder / "model.safetensors"
        named = canonical({f"{folder}.{key}": tensor for key, tensor in load_file(weights).items()})
        save_atomically({key.removeprefix(f"{folder}."): tensor for key, tensor in named.items()}, weights)
    path = MODEL / "scheduler" / "scheduler_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | architecture.SCHEDULER_EXTRAS, indent=2, sort_keys=True)
        + "\n"
    )


def train_adapters(commands: dict[str, list[str]]) -> None:
    """`intaglio train` for every name at once, one process each: alone, none of them fills a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    running = {}
    for name, command in commands.items():
        with (WORK / "train" / f"{name}.log").open("w") as log:
            running[name] = subprocess.Popen(
                [sys.executable, "-m", "intaglio_train", *command, *ADAPTER_OPTIONS],
                stdout=log,
                stderr=log,
                env=environment,
            )
    failed = [name for name, process in running.items() if process.wait() != 0]
    if failed:
        raise SystemExit(f"training failed: {', '.join(failed)}; see {WORK}/train/NAME.log")


def train_controlnets_and_loras() -> None:
    """The segmentation ControlNet and all LoRAs, side by side; then the four ControlNets that start from it."""
    controls = {
        name: [
            "controlnet",
            f"configs/training/controlnet_{name}.yaml",
            "--install",
            str(MODEL.parent / "controlnets"),
        ]
        for name in architecture.CONTROL_TYPES
    }
    first = {"segmentation": controls.pop("segmentation")}
    loras = {
        name: [
            "lora",
            f"configs/training/{name}.yaml",
            "--data",
            str(WORK / "data" / name),
            "--install",
            str(MODEL.parent / "loras"),
        ]
        for name in LESSONS
    }
    train_adapters(first | loras)
    train_adapters(controls)


def adapter_files() -> Iterator[Path]:
    """What `train_controlnets_and_loras` leaves."""
    yield from (MODEL.parent / "controlnets" / name / "config.json" for name in architecture.CONTROL_TYPES)
    yield from (MODEL.parent / "loras" / f"{name}.safetensors" for name in LESSONS)


STAGES: dict[str, tuple[Callable[[], None], Callable[[], Iterator[Path]]]] = {
    "data": (
        make_data,
        lambda: (WORK / "data" / name / "captions.json" for name in ("base", "controls", "meadow")),
    ),
    "autoencoder": (train_autoencoder, lambda: iter((WORK / "train" / "autoencoder.safetensors",))),
    "base": (train_base, lambda: iter((WORK / "train" / "base.safetensors",))),
    "refine": (refine_base, lambda: iter((WORK / "train" / "refine.safetensors",))),
    "decoder": (train_decoder, lambda: iter((WORK / "train" / "decoder.safetensors",))),
    "assemble": (assemble, lambda: iter((MODEL / "unet" / "diffusion_pytorch_model.safetensors",))),
    "adapters": (train_controlnets_and_loras, adapter_files),
}


def is_done(name: str) -> bool:
    """Whether a stage's outputs are all there and none is older than what the stage before left (the
    committed weights are, at first).
    """
    order = list(STAGES)
    outputs = list(STAGES[name][1]())
    inputs = STAGES[order[order.index(name) - 1]][1]() if name != order[0] else ()
    newest = max((path.stat().st_mtime for path in inputs if path.exists()), default=0.0)
    return all(path.exists() and path.stat().st_mtime >= newest for path in outputs)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help=f"any of {', '.join(STAGES)}; all of them when none is named",
    )
    parser.add_argument("--steps", type=int, help="train this many steps instead (a trial)")
    parser.add_argument(
        "--again", action="store_true", help="run the stages even where their output is there"
    )
    parser.add_argument("--eager", action="store_true", help="do without torch.compile")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"unknown stage {', '.join(sorted(unknown))}: choose from {', '.join(STAGES)}")
    if arguments.eager:
        globals()["COMPILE"] = False
    if arguments.steps:
        STEPS.update(dict.fromkeys(STEPS, arguments.steps))
        ADAPTER_OPTIONS.extend(["--steps", str(arguments.steps)])
    table = Table("stage", "seconds", "outcome")
    for name in arguments.stages or STAGES:
        if is_done(name) and not arguments.again:
            table.add_row(name, "0", "already there")
            continue
        start = time.monotonic()
        STAGES[name][0]()
        table.add_row(name, f"{time.monotonic() - start:.0f}", "done")
    Console().print(table)


if __name__ == "__main__":
    main()
