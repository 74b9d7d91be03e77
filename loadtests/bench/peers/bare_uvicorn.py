"""The least that answers V2 binary tensors: uvicorn, no validation, no metrics, no cache, inference inline."""

import gc
import sys

import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.types import Receive, Scope, Send


def main(graph: str, port: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if scope["method"] == "GET":
            await _respond(send, [], b"")
            return
        size = int(dict(scope["headers"])[b"inference-header-content-length"])
        (tensor,) = orjson.loads(body[:size])["inputs"]
        images = np.frombuffer(body, np.uint8, offset=size).reshape(tensor["shape"])
        (rows,) = session.run(["probabilities"], {"images": images})
        raw = rows.tobytes()
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": rows.shape,
            "parameters": {"binary_data_size": len(raw)},
        }
        head = orjson.dumps({"model_name": "bare", "outputs": [output]})
        length = (b"inference-header-content-length", b"%d" % len(head))
        await _respond(send, [(b"content-type", b"application/octet-stream"), length], head + raw)

    gc.collect()
    gc.freeze()  # as Duet does
    uvicorn.run(
        app, port=int(port), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )


async def _respond(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    main(*sys.argv[1:])
