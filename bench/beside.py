"""Two gateways that run already, asked in turns: `python -m bench.beside URL URL --image FILE`.

For what another way of serving the same model costs per request. Each round asks both, in an order drawn
anew, so what disturbs the machine for a while disturbs both. The load is `--clients` requests at a time.
"""

import argparse
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench.timing import spread

__all__ = ["compare", "summary"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs=2, metavar="URL")
    parser.add_argument("--image", type=Path, required=True, help="PNG that is sent.")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--clients", type=int, default=1, help="Requests under way at once.")
    options = parser.parse_args()
    print(
        summary(
            options.urls, compare(options.urls, options.image.read_bytes(), options.rounds, options.clients)
        )
    )


def compare(urls: Sequence[str], image: bytes, rounds: int, clients: int) -> list[list[float]]:
    """For each of `urls` the seconds that a request took, mean of `clients` at once, in every round. Raises
    `httpx.HTTPStatusError` where one is not answered 200."""
    seconds: list[list[float]] = [[] for _ in urls]
    draw = random.Random(0)
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(clients) as pool:

        def ask(url: str) -> float:
            began = time.perf_counter()
            headers = {"Content-Type": "image/png"}
            client.post(f"{url}/classify", content=image, headers=headers).raise_for_status()
            return time.perf_counter() - began

        for number in range(rounds + 1):
            order = list(range(len(urls)))
            draw.shuffle(order)
            for which in order:
                took = list(pool.map(ask, [urls[which]] * clients))
                if number:  # the first round opens connections
                    seconds[which].append(sum(took) / clients)
    return seconds


def summary(urls: Sequence[str], seconds: Sequence[Sequence[float]]) -> str:
    """Median and quartiles of each, and of the difference within a round, in milliseconds."""
    more = [second - first for first, second in zip(*seconds, strict=True)]
    rows = [*zip(urls, seconds, strict=True), ("the second takes more by", more)]
    lines = []
    for name, values in rows:
        found = spread(values)
        lines.append(f"{name:32} {1e3 * found.median:7.2f} ms ({1e3 * found.low:.2f}–{1e3 * found.high:.2f})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
