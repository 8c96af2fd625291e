"""One ONNX file of a detector, in a session of ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ConfigError
from intaglio.onnx_runtime import onnx_runtime

__all__ = ["Device", "Network", "Shape", "providers"]

Device = Literal["cpu", "card"]

Shape = tuple[int | None, ...]
"""None where a size is not fixed."""
_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


class Network:
    """A network with one input. Making one reads the file."""

    def __init__(self, path: Path, *, expected: str, device: Device = "cpu") -> None:
        """`expected` says, for errors, which network the file must hold.

        Raises:
            ConfigError: the file is missing, is no ONNX file, or its input is of a type that no detector has;
                or ONNX Runtime has no CUDA where `device` is `card`.
            MissingExtra: ONNX Runtime is not installed.
        """
        self._path = path
        self._expected = expected
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; put the ONNX file of {expected} there")
        self._session = self._opened(device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            raise self.unlike(f"inputs {', '.join(f'{one.name} {one.type}' for one in inputs)}")
        self._input: str = inputs[0].name
        self.dtype: str = _DTYPES[inputs[0].type]
        self.input_shape = _shape(inputs[0].shape)
        self.output_shapes = tuple(_shape(one.shape) for one in self._session.get_outputs())
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def _opened(self, device: Device) -> Any:
        onnxruntime = onnx_runtime()
        chosen = providers(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _usable_cores()
        options.log_severity_level = 3
        # Waiting threads must not take the cores of a server on this machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(self._path, options, providers=chosen)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self.unlike(f"does not load: {error}") from error

    def unlike(self, problem: str) -> ConfigError:
        """The error that says that the file is not what was expected."""
        return ConfigError(f"{self._path}: {problem}; it must be the ONNX file of {self._expected}")

    def check_finite(self, values: NDArray[Any]) -> None:
        """Raises ConfigError where some of `values`, which follow from an output, are not finite."""
        if not np.isfinite(values).all():
            raise self.unlike("its output holds numbers that are not finite")

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height of an input [1, 3, H, W].

        Raises:
            ConfigError: the input is another one, or its size is not fixed.
        """
        match self.input_shape:
            case (1 | None, 3, int(height), int(width)):
                return width, height
            case shape:
                raise self.unlike(f"its input is {list(shape)}")

    def __call__(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Every output for one input.

        Raises:
            ConfigError: the network fails at it, gives numbers that are not finite, or takes whole numbers
                where `values` are none.
        """
        if np.issubdtype(values.dtype, np.floating) and not np.issubdtype(self.dtype, np.floating):
            # Values from 0 to 1 would all become 0, and nothing would be found.
            raise self.unlike(f"its input is of {self.dtype}; allowed: float32 or float16")
        given = np.ascontiguousarray(values, dtype=self.dtype)
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, {self._input: given})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise self.unlike(f"fails: {error}") from error
        for output in outputs:
            # Of a file that is another network, an output may be text or a sequence.
            if isinstance(output, np.ndarray) and np.issubdtype(output.dtype, np.floating):
                self.check_finite(output)  # NaN is above no threshold: nothing would be found
        return outputs

    def checked(self, values: NDArray[Any]) -> list[NDArray[np.float32]]:
        """As a call. Every output has the shape that the file states, which ONNX Runtime does not promise."""
        outputs = self(values)
        for output, stated in zip(outputs, self.output_shapes, strict=True):
            sizes_fit = (fixed in (None, size) for fixed, size in zip(stated, output.shape, strict=False))
            if len(stated) != output.ndim or not all(sizes_fit):
                raise self.unlike(f"its output is {list(output.shape)}, and the file says {list(stated)}")
        return outputs


def _usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows, where filters of a batch run


def providers(device: Device) -> list[str]:
    """What ONNX Runtime calls the devices that run a network, by preference.

    Raises:
        ConfigError: there is no CUDA, and `device` is `card`.
        MissingExtra: ONNX Runtime is not installed.
    """
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnx_runtime().get_available_providers():
        right = "install onnxruntime-gpu instead of onnxruntime, or say device: cpu"
        raise ConfigError(f"device card: this ONNX Runtime has no CUDA; {right}")
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _shape(shape: list[Any]) -> Shape:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)
