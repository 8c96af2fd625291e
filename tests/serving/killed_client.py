"""A client to be killed: `python killed_client.py HOST:PORT`, with a serialized `ModelInferRequest` on stdin.

It prints a line once its picture is being drawn, and reads on. It imports gRPC only, so that it starts fast.
"""

import sys

import grpc


def main(url: str, request: bytes) -> None:
    channel = grpc.insecure_channel(url)
    ask = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    for response in ask(iter([request])):
        if b'"progress"' in response:
            print("begun", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer.read())
