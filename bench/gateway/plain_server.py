"""The network behind a plain FastAPI handler, one image at a time: arguments BUNDLE PORT."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

from models.bundle import read_spec
from models.loading import load_network


def create_app(bundle: Path) -> FastAPI:
    app, spec = FastAPI(), read_spec(bundle)
    network = load_network(bundle, torch.device("cpu")).network
    mode = "L" if spec.input.channels == 1 else "RGB"

    @torch.inference_mode()
    def predict(data: bytes) -> tuple[int, float]:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode), dtype=np.float32) / 255
        images = (
            torch.from_numpy(pixels).reshape(*spec.input.size, spec.input.channels).permute(2, 0, 1)[None]
        )
        confidence, label = network(images).softmax(1).max(1)
        return int(label), float(confidence)

    @app.post("/predict")
    async def handle(request: Request) -> dict[str, Any]:
        label, confidence = predict(await request.body())
        return {"label": label, "confidence": confidence}

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else torch.get_num_threads())
    uvicorn.run(create_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning", access_log=False)
