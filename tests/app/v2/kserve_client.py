"""Run by KServe's own Python: asks the gateway at argv[1] about the images in argv[2]; prints JSON."""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(url: str, images: np.ndarray) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:
        said: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "tiny"),
        }
        for form, binary in (("json", False), ("binary", True)):
            answer = await client.infer(url, request(images, binary, {"partial": True}), model_name="tiny")
            said[form] = {
                output.name: [text(value) for value in output.as_numpy().ravel().tolist()]
                for output in answer.outputs
            }
        try:
            await client.infer(url, request(images, True, {}), model_name="tiny")
        except httpx.HTTPStatusError as error:
            said["refused"] = str(error)
    return said


def request(images: np.ndarray, binary: bool, parameters: dict[str, Any]) -> InferRequest:
    tensor = InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    wanted = [RequestedOutput(name, {"binary_data": binary}) for name in ("label", "verdict")]
    return InferRequest("tiny", [tensor], request_outputs=wanted, parameters=parameters)


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


print(json.dumps(asyncio.run(main(sys.argv[1], np.load(sys.argv[2])))))
