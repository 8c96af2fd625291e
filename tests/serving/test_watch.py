"""After retraining: a new file is checked, served and shown without a restart, and taken back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from intaglio.errors import ConfigError, LoraRefused
from intaglio.serving.server import Server
from intaglio_client import Client, SwapFailed
from intaglio_client.watch import Publisher, follow, followed_folders, store_of
from intaglio_client.watch_samples import Samples

from .conftest import REPOSITORY

pytestmark = pytest.mark.slow
ASKED: Any = {"width": 256, "height": 192, "steps": 2, "seed": 5, "loras": [("night", 1.0)]}
PROMPT = "a person dancing on a beach"


def picture(client: Client) -> Any:
    return client.generate(PROMPT, **ASKED).pixels


@pytest.fixture
def published(server: Server) -> Iterator[Any]:
    """The build's store, as it was again afterwards."""
    store, layers = store_of(server.deployment)
    before = store.current()
    files = {path: path.read_bytes() for path in store.folder.glob("*.safetensors")}
    yield store, layers
    for path, data in files.items():
        path.write_bytes(data)
    store.write(before)


def changed_lora(path: Path, factor: float) -> Path:
    """night, with its effect multiplied: a retrained file."""
    state = load_file(REPOSITORY / "miniature/loras/night.safetensors")
    save_file(
        {
            name: (values * factor if "lora_B" in name else values).astype(np.float16)
            for name, values in state.items()
        },
        path,
    )
    return path


def publisher_of(server: Server, published: Any, folder: Path, *, keep: int = 3) -> Publisher:
    store, layers = published
    return Publisher(store, layers, Samples(folder, PROMPT), server.grpc_url, keep)


def test_file_to_first_image(server: Server, client: Client, published: Any, tmp_path: Path) -> None:
    """A retrained file is served and shown within 15 s; as many versions as asked for are kept."""
    publisher = publisher_of(server, published, tmp_path, keep=2)
    for factor in (0.5, 0.6):
        found = publisher.publish("night", changed_lora(tmp_path / "night.safetensors", factor))
        assert found is not None
        assert found.samples is not None
        assert found.seconds < 15
    assert publisher.publish("night", tmp_path / "night.safetensors") is None, "it is served already"
    store = published[0]
    versions = store.current().loras["night"].versions
    assert len(versions) == 2
    assert all(store.path(version).is_file() for version in versions)
    assert client.generate(PROMPT, **ASKED).metadata["model"]["loras"]["night"] == versions[-1]


def of_full_size() -> dict[str, Any]:
    """Of one layer of SDXL itself, whose cross-attention reads wider text than the miniature's."""
    stem = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    return {
        f"{stem}.lora_A.weight": np.ones((4, 2048), np.float16),
        f"{stem}.lora_B.weight": np.ones((640, 4), np.float16),
    }


def test_a_file_that_is_replaced_while_it_is_read(
    server: Server, client: Client, published: Any, tmp_path: Path
) -> None:
    """What was read is checked, published and served; what came after is another version, refused or not."""
    store, layers = published
    source = changed_lora(tmp_path / "night.safetensors", 0.7)
    first = source.read_bytes()

    class Replacing:
        def read(self, lora: str, data: bytes) -> Any:
            source.write_bytes(b"the next checkpoint, half written")
            return layers.read(lora, data)

    replacing: Any = Replacing()
    found = Publisher(store, replacing, Samples(tmp_path, PROMPT), server.grpc_url, 3).publish(
        "night", source
    )
    assert found is not None
    assert found.sha256 == hashlib.sha256(first).hexdigest()
    assert store.path(found.sha256).read_bytes() == first
    after = picture(client)
    with pytest.raises(LoraRefused):
        publisher_of(server, published, tmp_path).publish("night", source)
    assert np.array_equal(picture(client), after)


def test_bad_files_leave_what_is_served(
    server: Server, client: Client, published: Any, tmp_path: Path
) -> None:
    before = picture(client)
    publisher = publisher_of(server, published, tmp_path)
    bad = tmp_path / "night.safetensors"
    state = load_file(REPOSITORY / "miniature/loras/night.safetensors")
    first = next(iter(state))
    changes: dict[str, Any] = {
        "cut short": lambda: bad.write_bytes(
            (REPOSITORY / "miniature/loras/night.safetensors").read_bytes()[:-9]
        ),
        "not finite": lambda: save_file(state | {first: np.full_like(state[first], np.nan)}, bad),
        "keys name no layer": lambda: save_file(
            {f"other.{name}": values for name, values in state.items()}, bad
        ),
        "it is a Flux LoRA": lambda: save_file(
            {f"lora_unet_double_blocks_0_{name}": values for name, values in state.items()}, bad
        ),
        "full-size SDXL": lambda: save_file(of_full_size(), bad),
    }
    for reason, write in changes.items():
        write()
        with pytest.raises(LoraRefused, match=reason):
            publisher.publish("night", bad)
    with pytest.raises(ConfigError, match="lora dusk: not served by this build"):
        publisher.publish("dusk", bad)
    assert np.array_equal(picture(client), before)


def test_what_the_server_cannot_put_on_is_taken_back(
    server: Server, client: Client, published: Any, tmp_path: Path
) -> None:
    """A file that passes the check and breaks in the server: it vanishes from the store immediately."""
    store, _ = published
    before = store.current().loras["night"]
    publisher = publisher_of(server, published, tmp_path)
    publish = store.publish_version

    def publish_and_lose(lora: str, digest: str, **given: Any) -> Any:
        done = publish(lora, digest, **given)
        store.path(digest).unlink()
        return done

    store.publish_version = publish_and_lose
    with pytest.raises(SwapFailed, match="cannot apply night@1"):
        publisher.publish("night", changed_lora(tmp_path / "night.safetensors", 0.3))
    assert store.current().loras["night"] == before
    assert picture(client).any()


def test_the_server_of_the_build_is_found(
    server: Server, client: Client, published: Any, tmp_path: Path
) -> None:
    """Its ports are not the configuration's."""
    store, layers = published
    source = changed_lora(tmp_path / "night.safetensors", 0.45)
    found = Publisher(store, layers, Samples(tmp_path, PROMPT), None, 3).publish("night", source)
    assert found is not None
    assert found.samples is not None
    assert found.note is None


def test_without_a_server_it_is_published(server: Server, published: Any, tmp_path: Path) -> None:
    store, layers = published
    publisher = Publisher(store, layers, Samples(tmp_path), "127.0.0.1:9", 3)
    found = publisher.publish("night", changed_lora(tmp_path / "night.safetensors", 0.4))
    assert found is not None
    assert found.samples is None
    assert found.note == "the server at 127.0.0.1:9 is not ready, so nothing was drawn"
    assert store.current().loras["night"].sha256 == found.sha256


def test_a_refused_file_does_not_end_the_watch(server: Server, published: Any, tmp_path: Path) -> None:
    publisher = Publisher(*published, Samples(tmp_path), "127.0.0.1:9", 3)
    refused: list[Exception] = []
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "1.safetensors").write_bytes(b"nothing")
    looks = follow(publisher, {"night": folder}, interval=0.0, refused=refused.append)
    assert [next(looks) for _ in range(3)] == [None] * 3
    assert len(refused) == 1
    shutil.move(changed_lora(tmp_path / "new.safetensors", 0.2), folder / "2.safetensors")
    found = [next(looks) for _ in range(3)]
    assert [one.source.name for one in found if one is not None] == ["2.safetensors"]


def test_folders_to_follow(server: Server, tmp_path: Path) -> None:
    assert followed_folders(server.deployment, {})["night"] == REPOSITORY / "trained/night"
    assert followed_folders(server.deployment, {"night": tmp_path})["night"] == tmp_path
    with pytest.raises(ConfigError, match="lora dusk: not in the registry"):
        followed_folders(server.deployment, {"dusk": tmp_path})
    with pytest.raises(ConfigError, match="nothing to follow"):
        followed_folders(server.deployment.model_copy(update={"registry": None}), {})
