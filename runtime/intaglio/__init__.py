"""The contract (tensors, models, config, errors) and what runs inside Triton. Never imports torch."""

from intaglio.errors import IntaglioError, InvalidRequest

__all__ = ["IntaglioError", "InvalidRequest", "__version__"]
__version__ = "0.1.0"
