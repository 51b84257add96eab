"""Whose image was answered? Two hundred clients at once, and no image is sent twice."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest

from app.assembly import build_firewall
from app.settings import Settings
from tests.app.service import Service
from tests.app.tiny import encoded, form
from tests.proof.telling import BITS, SCALES, image_of, score_of, write_telling_bundle

CLIENTS, ROUNDS = 200, 2
Answers = list[tuple[int, float]]
"""Per image: the number that was read off it, and its SPC."""
Ask = Callable[[httpx.AsyncClient, list[int]], Awaitable[Answers]]


def of(body: dict[str, Any]) -> Answers:
    return [(r["prediction"]["label"], r["detections"][0]["score"]) for r in body["results"]]


async def as_body(http: httpx.AsyncClient, numbers: list[int]) -> Answers:
    answers: Answers = []
    for number in numbers:
        answer = await http.post(
            "/classify", content=encoded(image_of(number)), headers={"Content-Type": "image/png"}
        )
        answers += of(answer.json())
    return answers


async def as_form(http: httpx.AsyncClient, numbers: list[int]) -> Answers:
    return of((await http.post("/classify", files=form([encoded(image_of(n)) for n in numbers]))).json())


async def as_tensor(http: httpx.AsyncClient, numbers: list[int]) -> Answers:
    """By the Open Inference Protocol."""
    pixels = np.stack([image_of(number) for number in numbers])[:, None]
    tensor = {"name": "x", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    asked = {"inputs": [tensor], "outputs": [{"name": "label"}, {"name": "score"}]}
    answer = (await http.post("/v2/models/telling/infer", json=asked)).json()
    labels, scores = (output["data"] for output in answer["outputs"])
    return list(zip(labels, scores, strict=True))


def test_every_response_carries_the_results_of_its_own_images(tmp_path: Path) -> None:
    random = Random(0)
    numbers = random.sample(range(2**BITS), 2**BITS)
    sizes = [1 + n % 3 for n in range(CLIENTS * ROUNDS)]
    assert sum(sizes) <= len(numbers)
    cuts = np.split(np.array(numbers[: sum(sizes)]), np.cumsum(sizes)[:-1])
    ways: tuple[Ask, ...] = (as_body, as_form, as_tensor)
    settings = {"bundle": write_telling_bundle(tmp_path / "bundle"), "data_dir": tmp_path / "data",
                "device": "cpu", "mode": "monitor", "thresholds": "fixed", "detectors": ["spc"],
                "spc_scales": list(SCALES), "batch_delay_ms": 5, "batch_rows": 96}  # fmt: skip

    async def client(url: str, number: int, start: asyncio.Barrier) -> int:
        async with httpx.AsyncClient(base_url=url, timeout=120, verify=False) as http:
            await start.wait()
            for turn in range(ROUNDS):
                mine = cuts[number * ROUNDS + turn].tolist()
                found = await ways[(number + turn) % len(ways)](http, mine)
                assert [label for label, _ in found] == mine
                bounds = [(score, score_of(n)) for (_, score), n in zip(found, mine, strict=True)]
                assert all((bound > 0.5) == (exact > 0.5) for bound, exact in bounds), bounds
        return ROUNDS

    async def main(url: str) -> int:
        start = asyncio.Barrier(CLIENTS)
        return sum(await asyncio.gather(*(client(url, number, start) for number in range(CLIENTS))))

    with Service(**settings) as service:
        assert asyncio.run(main(service.url)) == CLIENTS * ROUNDS
        text = service.http.get("/metrics").text
    batches = next(line for line in text.splitlines() if line.startswith("triggerwall_batch_images_count"))
    assert float(batches.split()[1]) < sum(sizes) / 3  # strangers did share batches


@pytest.mark.parametrize("first", [0, 1000])
def test_the_network_tells_numbers_and_their_scores(tmp_path: Path, first: int) -> None:
    """What the test above believes of the network is true of it alone."""
    import torch

    bundle = write_telling_bundle(tmp_path / "bundle")
    settings = Settings(
        bundle=bundle, detectors=("spc",), spc_scales=SCALES, thresholds="fixed", device="cpu"
    )
    numbers = range(first, first + 24)
    images = torch.from_numpy(np.stack([image_of(n) for n in numbers]) / np.float32(255))[:, None].float()
    _, inspections = build_firewall(settings).inspect(images, full=True)
    assert [each.label for each in inspections] == list(numbers)
    assert [each.detections[0].score for each in inspections] == pytest.approx([score_of(n) for n in numbers])
    assert {score_of(n) for n in range(24)} == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
