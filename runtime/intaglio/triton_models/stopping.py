"""The models for clients, of a server that stops: every request is refused, and none is begun.

`intaglio serve` loads this in their place (`intaglio.serving.drain`). It opens no build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from intaglio.errors import Stopping

__all__ = ["REFUSAL", "StoppingModel"]

REFUSAL: Final = "the server is stopping and has not begun this request; ask another server, or again later"
"""Clients know it by its beginning."""


class StoppingModel:
    """`sdxl`, `sdxl_stream` and `annotate`, each with the configuration that it had."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read how the model answers."""
        self._pb: Any = import_module("triton_python_backend_utils")
        policy = json.loads(args["model_config"]).get("model_transaction_policy", {})
        self._streams = bool(policy.get("decoupled", False))

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Refuse `requests`."""
        refusals = [self._refusal() for _ in requests]
        if not self._streams:
            return refusals
        for request, refusal in zip(requests, refusals, strict=True):
            final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            request.get_response_sender().send(refusal, flags=final)
        return None

    def _refusal(self) -> Any:
        code = getattr(self._pb.TritonError, Stopping.triton_code)
        return self._pb.InferenceResponse(output_tensors=[], error=self._pb.TritonError(REFUSAL, code))
