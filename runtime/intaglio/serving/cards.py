"""Which cards a deployment is served on."""

from __future__ import annotations

from intaglio.contract.config import Deployment
from intaglio.engines.card import CardMemory, check_gpu, gpu_count, read_card_memory

__all__ = ["read_memory_of", "served_gpus"]


def served_gpus(deployment: Deployment) -> tuple[int, ...]:
    """CUDA's indices of the cards that draw; `execution.gpu` where the deployment names no others.

    Raises:
        ConfigError: the machine has cards, but not one of those.
    """
    gpus = deployment.server.gpus
    if gpus is None:
        check_gpu(deployment.execution.gpu)
        return (deployment.execution.gpu,)
    if gpus == "all":
        return tuple(range(gpu_count()))
    for gpu in gpus:
        check_gpu(gpu, field="server.gpus")
    return gpus


def read_memory_of(gpus: tuple[int, ...]) -> dict[int, CardMemory]:
    """Memory of each of the cards `gpus` that is there, by its index."""
    found = {gpu: read_card_memory(gpu) for gpu in gpus}
    return {gpu: memory for gpu, memory in found.items() if memory is not None}
