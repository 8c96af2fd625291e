"""Networks that look at pictures, named in a YAML file: `intaglio bench quality --extractors FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, PositiveFloat, PositiveInt

from intaglio.contract.yaml_files import Strict, read_yaml, resolved_path, validated
from intaglio.errors import ConfigError
from intaglio.onnx_runtime import onnx_runtime
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.judges import Extractor

__all__ = ["ClipScore", "Extractors", "ExtractorsFile", "open_extractors", "read_extractors"]

_HINT: Final = "; a file of extractors is described in docs/benchmarking.md"
_OwnPath = Annotated[Path, AfterValidator(resolved_path)]
_Colours = tuple[float, float, float]
_Deviations = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class ImageNetwork(Strict):
    """An ONNX network from a picture [1, 3, height, width] to a vector, its first output."""

    file: _OwnPath
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Width and height; absent: the network's own, or 224 where it takes any."""
    mean: _Colours = (0.485, 0.456, 0.406)
    """Of R, G and B in 0..1: what pictures are normalised with. ImageNet's."""
    deviation: _Deviations = (0.229, 0.224, 0.225)

    def opened(self) -> Extractor:
        """The network; ConfigError where the file is none."""
        return Extractor(self.file, size=self.size, mean=self.mean, deviation=self.deviation)


class ClipNetworks(Strict):
    """CLIP: the score of a picture and its prompt."""

    image: ImageNetwork
    text: _OwnPath
    """An ONNX network from token ids [1, 77] to a vector as long as that of the picture, its first output."""
    tokenizer: _OwnPath
    """Folder with vocab.json and merges.txt."""


class ExtractorsFile(Strict):
    """A whole file; at least one key."""

    perceptual: ImageNetwork | None = None
    """For the distance of two pictures of one scene."""
    features: ImageNetwork | None = None
    """For FID and KID beside `--reference`."""
    clip: ClipNetworks | None = None


class ClipScore:
    """100 times the cosine of the vectors of a picture and its prompt, at least 0: Hessel et al.,
    "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", 2021, in the scale of torchmetrics.
    """

    def __init__(self, networks: ClipNetworks) -> None:
        """Raises ConfigError where a file is none of CLIP's, MissingExtra without the extra `serve`."""
        # Needs the extra `serve`.
        from intaglio.stages.preprocess.tokenizer import CHUNK_TOKENS, PromptTokenizer  # noqa: PLC0415

        self._image = networks.image.opened()
        self._tokenizer = PromptTokenizer.from_folder(networks.tokenizer)
        self._most_tokens = CHUNK_TOKENS
        onnxruntime = onnx_runtime()
        try:
            self._text: Any = onnxruntime.InferenceSession(
                str(networks.text), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no error that all of its others are kinds of
            raise ConfigError(f"{networks.text}: cannot be opened as ONNX: {error}") from error
        inputs = self._text.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise ConfigError(f"{networks.text}: inputs are {shapes}; allowed: token ids [1, 77]")
        self._input = inputs[0]
        self._texts: dict[str, NDArray[np.float64]] = {}

    def score(self, pixels: Pixels, prompt: str) -> float:
        """The score of a picture [H, W, RGB] and the first 75 tokens of a prompt."""
        image, text = self._image.features(pixels), self._vector(prompt)
        if image.shape != text.shape:
            raise ConfigError(
                f"clip: the picture's vector has {image.size} values and the prompt's {text.size}; "
                "both must come from one model"
            )
        return max(0.0, 100 * float(image @ text))

    def _vector(self, prompt: str) -> NDArray[np.float64]:
        if prompt not in self._texts:
            tokenizer = self._tokenizer
            ids = tokenizer.framed(tokenizer.token_ids(prompt)[: self._most_tokens])
            kind = np.int32 if self._input.type == "tensor(int32)" else np.int64
            given = {self._input.name: np.array([ids], kind)}
            vector = np.asarray(self._text.run(None, given)[0], np.float64).ravel()
            self._texts[prompt] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return self._texts[prompt]


@dataclass(frozen=True)
class Extractors:
    """The networks of a file, opened."""

    perceptual: Extractor | None = None
    features: Extractor | None = None
    clip: ClipScore | None = None


def read_extractors(path: Path) -> ExtractorsFile:
    """The file at `path`.

    Raises:
        ConfigError: names the key that is wrong and what would be right.
    """
    found = validated(ExtractorsFile, read_yaml(path, hint=_HINT), path)
    if found == ExtractorsFile():
        raise ConfigError(f"{path}: names no network; allowed: {', '.join(ExtractorsFile.model_fields)}")
    return found


def open_extractors(file: ExtractorsFile) -> Extractors:
    """Open every network of `file`; ConfigError where one cannot be opened."""
    return Extractors(
        perceptual=file.perceptual.opened() if file.perceptual else None,
        features=file.features.opened() if file.features else None,
        clip=ClipScore(file.clip) if file.clip else None,
    )
