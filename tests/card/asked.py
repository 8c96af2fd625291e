"""Pictures that the CPU has drawn, and the requests for them.

python -m tests.card.asked     draws them again with ONNX Runtime, for the demo and for each solver
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio.contract.config import load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.demo import POSE, PROMPT, SEED

__all__ = ["DEMO", "PICTURES", "SOLVERS", "request_of"]

PICTURES = Path(__file__).parent / "pictures"
DEMO = PICTURES / "demo.png"
SOLVERS = ("euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm")


def request_of(solver: str) -> dict[str, Any]:
    """What the picture of `solver` is asked with: a pose, a LoRA, 12 steps."""
    return {
        "scheduler": solver,
        "guidance_scale": 1.0 if solver == "lcm" else 5.0,
        "pose": POSE,
        "loras": [("mara", 1.0)],
        "steps": 12,
        "seed": SEED,
        "width": 256,
        "height": 192,
    }


def main() -> None:
    deployment = load_deployment(Path(__file__).parents[2] / "configs" / "miniature.yaml")
    with Server(deployment, endpoints=Endpoints()) as server, Client(server.grpc_url) as client:
        client.generate(PROMPT, pose=POSE, seed=SEED, loras=[("mara", None)]).save(DEMO)
        for solver in SOLVERS:
            client.generate(PROMPT, **request_of(solver)).save(PICTURES / f"{solver}.png")


if __name__ == "__main__":
    main()
