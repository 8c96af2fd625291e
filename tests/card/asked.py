"""Pictures that the CPU has drawn, and the requests for them.

python -m tests.card.asked     draws them again with ONNX Runtime, for the demo and for each solver, and
                               judges pictures of the held-out scenes (two minutes)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from intaglio.contract.config import load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.demo import POSE, PROMPT, SEED

from .judged import judge_served

__all__ = ["DEMO", "JUDGED", "PICTURES", "SOLVERS", "request_of"]

PICTURES = Path(__file__).parent / "pictures"
DEMO = PICTURES / "demo.png"
JUDGED = PICTURES / "judged.json"
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
        JUDGED.write_text(json.dumps(judge_served(client), indent=1) + "\n")


if __name__ == "__main__":
    main()
