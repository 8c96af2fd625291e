"""A signed picture is valid until something in it changes; what cannot sign is named before it is asked."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.provenance import ContentCredentials
from intaglio.errors import ConfigError, MissingExtra
from intaglio.imaging.credentials import open_signer
from intaglio.imaging.images import encode_image, read_metadata
from intaglio.imaging.xmp import DIGITAL_SOURCE_TYPE

OPENSSL = """
openssl ecparam -name prime256v1 -genkey -noout -out root.key
openssl req -x509 -new -key root.key -days 2 -subj "/O=Test/CN=Root" -out root.pem \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out signer.key
openssl req -new -key signer.key -subj "/O=Test/CN=Signer" -out signer.csr
printf '%s\\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
    extendedKeyUsage=critical,emailProtection subjectKeyIdentifier=hash authorityKeyIdentifier=keyid \
    > extensions
openssl x509 -req -in signer.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile extensions \
    -out signer.pem
cat signer.pem root.pem > chain.pem
"""
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> ContentCredentials:
    """A signer whom only its own root vouches for."""
    pytest.importorskip("c2pa")
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["bash", "-euc", OPENSSL], cwd=folder, check=True, capture_output=True)
    return ContentCredentials(certificate=folder / "chain.pem", private_key=folder / "signer.key")


def read_credentials(data: bytes, kind: str) -> dict[str, Any]:
    import c2pa  # noqa: PLC0415  (an extra)

    return dict(json.loads(c2pa.Reader(f"image/{kind}", io.BytesIO(data)).json()))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_signed_picture_is_valid_and_keeps_its_metadata(credentials: ContentCredentials, kind: str) -> None:
    plain = encode_image(PIXELS, output_format=kind, metadata={"prompt": "a fox"})
    signed = open_signer(credentials)(plain, kind)
    found = read_credentials(signed, kind)
    assert found["validation_state"] == "Valid"
    (manifest,) = found["manifests"].values()
    assert manifest["claim_generator_info"][0]["name"] == "intaglio"
    (assertion,) = (one for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))
    assert assertion["data"]["actions"][0]["digitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert read_metadata(signed) == {"prompt": "a fox"}
    np.testing.assert_array_equal(Image.open(io.BytesIO(signed)), Image.open(io.BytesIO(plain)))
    assert len(signed) - len(plain) < 50_000
    changed = signed.replace(b"a fox", b"a dog")
    assert read_credentials(changed, kind)["validation_state"] == "Invalid"


def test_what_cannot_sign_is_named(credentials: ContentCredentials, tmp_path: Path) -> None:
    for changes, says in (
        ({"private_key": tmp_path / "none.key"}, "none.key: No such file"),
        ({"certificate": credentials.private_key}, "signer.key cannot sign"),
        ({"algorithm": "ed25519"}, "chain.pem cannot sign"),
    ):
        with pytest.raises(ConfigError, match=f"^provenance.c2pa: .*{says}"):
            open_signer(credentials.model_copy(update=changes))


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(
        MissingExtra, match=r"c2pa-python is not installed; run: pip install 'intaglio\[c2pa\]'"
    ):
        open_signer(ContentCredentials(certificate=tmp_path / "a.pem", private_key=tmp_path / "b.key"))
