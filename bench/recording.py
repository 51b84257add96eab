"""What keeping every decision costs: `python -m bench.recording`.

Two gateways in processes of their own, one that keeps decisions and quarantine and one that keeps nothing,
get the same digits in turns. Compared is the processor time that each took per image, which other work on the
machine changes less than the clock's; both are printed. Writing happens on threads of the gateway's process:
it is in the figure.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import httpx

from lab.demo.images import as_png, as_zip, demo_images

SETTLE_S = 1.2  # longer than a decision waits to be written: what a turn kept is in its own figure


class Gateway:
    """One gateway on the demo bundle, calibrated."""

    def __init__(self, keeps: bool, archive: bytes) -> None:
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"DECISIONS": str(keeps).lower(), "DATA_DIR": self.folder.name, "DEVICE": "cpu"}
        settings |= {"LOG_LEVEL": "error"}
        environment = os.environ | {f"TRIGGERWALL_{name}": value for name, value in settings.items()}
        command = "from app.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--port", str(port)], env=environment
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
        while True:
            try:
                self.http.get("/livez")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        answer = self.http.post("/calibrate", files={"archive": ("digits.zip", archive)})
        answer.raise_for_status()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(60)
        self.folder.cleanup()

    def cpu_seconds(self) -> float:
        found = re.search(r"^process_cpu_seconds_total (\S+)", self.http.get("/metrics").text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def turn(self, images: list[bytes], per_request: int) -> tuple[float, float]:
        """Processor and clock seconds per image of one turn; without the pause in which it writes."""
        before, began = self.cpu_seconds(), time.perf_counter()
        for start in range(0, len(images), per_request):
            parts = [("images", ("x.png", image)) for image in images[start : start + per_request]]
            self.http.post("/classify", files=parts).raise_for_status()
        clock = time.perf_counter() - began
        time.sleep(SETTLE_S)
        return (self.cpu_seconds() - before) / len(images), clock / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=6, help="of each gateway, for each size of request")
    parser.add_argument("--images", type=int, default=192, help="in one turn")
    asked = parser.parse_args()
    digits = demo_images(Path("models/demo"), 1000, asked.images, 1)
    images = [as_png(image) for image in digits.benign.images]
    archive = as_zip(digits.calibration)
    with Gateway(True, archive) as keeping, Gateway(False, archive) as plain:
        for per_request in (1, 32):
            for each in (keeping, plain):  # warm
                each.turn(images[:per_request], per_request)
            print(compared(keeping, plain, images, per_request, asked.turns), flush=True)


def compared(keeping: Gateway, plain: Gateway, images: list[bytes], per_request: int, turns: int) -> str:
    """One line: medians over `turns` pairs of turns."""
    pairs = [(keeping.turn(images, per_request), plain.turn(images, per_request)) for _ in range(turns)]
    more = [kept[0] / nothing[0] - 1 for kept, nothing in pairs]
    kept, nothing, kept_clock, nothing_clock = (
        1000 * statistics.median(pair[which][measure] for pair in pairs)
        for measure in (0, 1)
        for which in (0, 1)
    )
    return (
        f"{per_request:2} images a request: {kept:.2f} ms of processor time an image, {nothing:.2f} without: "
        f"{statistics.median(more):+.1%} ({min(more):+.1%} to {max(more):+.1%} in {turns} turns); "
        f"by the clock {kept_clock:.2f} and {nothing_clock:.2f} ms"
    )


if __name__ == "__main__":
    main()
