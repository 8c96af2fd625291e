"""Content Credentials: a signature inside a picture that says who made it, and that a trained model did.

The format is C2PA's (specification 2.1, c2pa.org); the library c2pa-python, an extra, writes it. The
signature covers the whole file, so metadata changed later make it invalid. Each signature is another one, so
signed pictures of the same request differ in their bytes, but not in their pixels.
"""

# ruff: noqa: PLC0415  (c2pa-python is an extra)

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from intaglio import __version__
from intaglio.contract.provenance import ContentCredentials
from intaglio.errors import ConfigError, MissingExtra, Unavailable
from intaglio.imaging.png import png_from_pixels
from intaglio.imaging.xmp import DIGITAL_SOURCE_TYPE

__all__ = ["Sign", "open_signer"]

Sign = Callable[[bytes, str], bytes]
"""(an encoded picture, its format) -> the picture with its signature."""
_SETTINGS: Final = {"builder": {"thumbnail": {"enabled": False}}}
"""A thumbnail would add a megabyte."""


def open_signer(credentials: ContentCredentials) -> Sign:
    """What signs pictures with `credentials`.

    A trial picture is signed first, so that a wrong certificate is noticed before a server is ready.

    Raises:
        MissingExtra: c2pa-python is not installed.
        ConfigError: a file cannot be read, or the certificate, key and algorithm do not go together.
    """
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtra("c2pa-python", extra="c2pa") from error
    trial = png_from_pixels(np.zeros((8, 8, 3), np.uint8), text={})
    try:
        certificate = credentials.certificate.read_bytes()
        key = credentials.private_key.read_bytes()
        _signed(c2pa, _signer(c2pa, credentials, certificate, key, timestamp=None), trial, "png")
        signer = _signer(c2pa, credentials, certificate, key, timestamp=credentials.timestamp_url)
    except OSError as error:
        raise ConfigError(f"provenance.c2pa: {error.filename}: {error.strerror}") from error
    except c2pa.C2paError as error:
        raise ConfigError(f"provenance.c2pa: {credentials.certificate} cannot sign: {error}") from error

    def sign(data: bytes, output_format: str) -> bytes:
        try:
            return _signed(c2pa, signer, data, output_format)
        except c2pa.C2paError as error:
            raise Unavailable(f"provenance.c2pa: the picture cannot be signed: {error}") from error

    return sign


def _signer(
    c2pa: Any, credentials: ContentCredentials, certificate: bytes, key: bytes, *, timestamp: str | None
) -> Any:
    url = None if timestamp is None else timestamp.encode()
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            alg=credentials.algorithm.encode(), sign_cert=certificate, private_key=key, ta_url=url
        )
    )


def _signed(c2pa: Any, signer: Any, data: bytes, output_format: str) -> bytes:
    kind = f"image/{output_format}"
    action = {"action": "c2pa.created", "digitalSourceType": DIGITAL_SOURCE_TYPE}
    claim = {
        "claim_generator_info": [{"name": "intaglio", "version": __version__}],
        "format": kind,
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    signed = io.BytesIO()
    context = c2pa.Context(settings=c2pa.Settings.from_dict(_SETTINGS))
    with c2pa.Builder(json.dumps(claim), context=context) as builder:
        builder.sign(signer, kind, io.BytesIO(data), signed)
    return signed.getvalue()
