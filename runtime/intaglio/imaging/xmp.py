"""XMP, the metadata that photo agencies and platforms read: who made a picture, and that a model made it.

`Iptc4xmpExt:DigitalSourceType` is IPTC's property, and `trainedAlgorithmicMedia` its value for pictures that
a trained model made (IPTC Photo Metadata Standard 2023.2; https://cv.iptc.org/newscodes/digitalsourcetype).
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape, unescape

from intaglio.contract.models import METADATA_KEY

__all__ = ["DIGITAL_SOURCE_TYPE", "xmp_packet", "xmp_parameters"]

DIGITAL_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP: Final = "http://ns.adobe.com/xap/1.0/"
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OWN: Final = "urn:intaglio:parameters:1.0/"
_PACKET: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}">'
    f'<rdf:Description rdf:about="" xmlns:xmp="{_XMP}" xmlns:Iptc4xmpExt="{_IPTC}" '
    f'xmlns:{METADATA_KEY}="{_OWN}">%s</rdf:Description>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
_PARAMETERS: Final = re.compile(
    f"<{METADATA_KEY}:parameters>([^<]*)</{METADATA_KEY}:parameters>".encode("ascii")
)


def xmp_packet(*, software: str, source_type: bool, parameters: str | None = None) -> bytes:
    """A packet that names `software`.

    With `source_type` it says that a trained model made the picture. `parameters` is our JSON, for formats
    that have no other place for it.
    """
    elements = [f"<xmp:CreatorTool>{escape(software)}</xmp:CreatorTool>"]
    if source_type:
        name = "Iptc4xmpExt:DigitalSourceType"
        elements.append(f"<{name}>{DIGITAL_SOURCE_TYPE}</{name}>")
    if parameters is not None:
        name = f"{METADATA_KEY}:parameters"
        elements.append(f"<{name}>{escape(parameters)}</{name}>")
    return (_PACKET % "".join(elements)).encode()


def xmp_parameters(packet: bytes) -> str | None:
    """The JSON that `xmp_packet` was given; None where there is none."""
    found = _PARAMETERS.search(packet)
    return unescape(found[1].decode()) if found else None
