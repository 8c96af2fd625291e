"""XMP is well-formed, says that a model made the picture, and gives back our JSON."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from intaglio.imaging.images import encode_image
from intaglio.imaging.xmp import DIGITAL_SOURCE_TYPE, xmp_packet, xmp_parameters

SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


def described(packet: bytes) -> ElementTree.Element:
    """The one description of a packet, read by an XML parser."""
    (description,) = ElementTree.fromstring(packet.decode().replace("\ufeff", "")).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    return description


def test_parameters_come_back() -> None:
    text = json.dumps({"prompt": '</rdf:RDF> & <lora:a:1> "quoted" \u0000 狐 ]]>'})
    packet = xmp_packet(software="intaglio 1", source_type=True, parameters=text)
    assert xmp_parameters(packet) == text
    assert described(packet).findtext("{urn:intaglio:parameters:1.0/}parameters") == text
    assert xmp_parameters(xmp_packet(software="intaglio 1", source_type=True)) is None
    assert xmp_parameters(b"") is None


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_says_that_a_model_made_it(kind: str) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    for source_type, expected in ((True, DIGITAL_SOURCE_TYPE), (False, None)):
        data = encode_image(pixels, output_format=kind, metadata={}, source_type=source_type)
        with Image.open(io.BytesIO(data)) as image:
            packet = image.info["xmp"]
        assert described(packet).findtext(SOURCE_TYPE) == expected
