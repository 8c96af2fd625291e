"""A LoRA file that no build before has fused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.loras.rebuild import make_new


def test_a_new_file_differs_in_one_value(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    before = {"a": np.ones((2, 2), np.float16), "b": np.ones((2, 2), np.float16)}
    save_file(before, path)
    make_new(path)
    after = load_file(path)
    assert sum(int((after[name] != before[name]).sum()) for name in before) == 1
