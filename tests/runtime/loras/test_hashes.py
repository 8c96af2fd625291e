"""The hash by which other programs know a LoRA depends on its tensors alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.hashes import ShortHashes, short_hash
from intaglio.loras.version_files import VersionFiles


def test_the_hash_is_that_of_the_tensors(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    found = set()
    for index, metadata in enumerate(({}, {"ss_output_name": "night", "note": "x" * 3000})):
        path = tmp_path / f"{index}.safetensors"
        path.write_bytes(save({"a": values}, metadata))
        found.add(short_hash(path))
    assert found == {hashlib.sha256(values.tobytes()).hexdigest()[:12]}


def test_a_file_is_read_once_and_may_be_gone(tmp_path: Path) -> None:
    files = VersionFiles(tmp_path)
    lora = ResolvedLora(id="night", sha256="a" * 64, weight=1)
    hashes = ShortHashes(files)
    assert hashes.of([lora]) == {}
    files.path(lora.sha256).write_bytes(save({"a": np.zeros(2, np.float32)}))
    found = hashes.of([lora])
    assert len(found["night"]) == 12
    files.path(lora.sha256).unlink()
    assert hashes.of([lora]) == found
