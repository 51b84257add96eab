"""The network behind LitServe, batched: arguments BUNDLE PORT BATCH DELAY_MS, in LitServe's environment."""

import base64
import io
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from PIL import Image

from models.bundle import read_spec
from models.loading import load_network


class Served(litserve.LitAPI):  # type: ignore[misc, unused-ignore]  # not installed here
    """Images come as its documentation sends them: base64 in JSON."""

    bundle: Path

    def setup(self, device: str) -> None:
        self.spec = read_spec(self.bundle).input
        self.network = load_network(self.bundle, torch.device(device)).network

    def decode_request(self, request) -> torch.Tensor:  # type: ignore[no-untyped-def]  # LitServe reads its type
        mode = "L" if self.spec.channels == 1 else "RGB"
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert(mode)
        pixels = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy(pixels).reshape(*self.spec.size, self.spec.channels).permute(2, 0, 1)

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    @torch.inference_mode()
    def predict(self, x: torch.Tensor) -> list[tuple[int, float]]:
        confidence, label = self.network(x).softmax(1).max(1)
        return list(zip(label.tolist(), confidence.tolist(), strict=True))

    def unbatch(self, output: list[tuple[int, float]]) -> list[tuple[int, float]]:
        return output

    def encode_response(self, output: tuple[int, float]) -> dict[str, Any]:
        return {"label": output[0], "confidence": output[1]}


if __name__ == "__main__":
    api = Served(max_batch_size=int(sys.argv[3]), batch_timeout=float(sys.argv[4]) / 1000)
    api.bundle = Path(sys.argv[1])  # of the instance: that is what reaches the worker's process
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(sys.argv[2]), host="127.0.0.1", log_level="warning", generate_client_file=False
    )
