"""The floor under every server's latency: the network and the arrivals, and nothing else on the machine.

Whatever has come by the time the network is free goes into the next batch. No HTTP, no sockets, no decoding,
no thread to hand over to, no client that needs a core: what a request waits for here, it waits for behind
any server that runs this network.
"""

import time

import torch
from torch import Tensor, nn

from bench.gateway.load import Outcome, arrivals
from bench.gateway.subject import CPU, Subject
from detectors.base import UnsupportedNetwork
from detectors.packing import pack_network
from models.loading import load_network

__all__ = ["FLOOR", "Floor"]

FLOOR = "no server: the network alone"


class Floor:
    """`network` as a gateway runs it, on up to as many images at once as `images` (B, C, H, W) has."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._images = images
        try:
            self._network: nn.Module = pack_network(network, images[:2])
        except UnsupportedNetwork:
            self._network = network

    @classmethod
    def of(cls, subject: Subject, batch: int) -> "Floor":
        classifier = load_network(subject.bundle, CPU)
        return cls(classifier.network, torch.rand(batch, classifier.info.channels, *classifier.info.size))

    @torch.inference_mode()
    def _run(self, count: int) -> None:
        self._network(self._images[:count]).softmax(1).max(1)

    def capacity(self, seconds: float) -> float:
        """Images a second, in full batches."""
        started, done = time.perf_counter(), 0
        while not done or time.perf_counter() - started < seconds:
            self._run(len(self._images))
            done += len(self._images)
        return done / (time.perf_counter() - started)

    def open_loop(self, rate: float, seconds: float, seed: int) -> Outcome:
        """The arrivals of `bench.gateway.load.open_loop`, answered by nothing but the network."""
        due, outcome = arrivals(rate, seconds, seed), Outcome()
        started = time.perf_counter()
        while due:
            time.sleep(max(0.0, due[0] - (time.perf_counter() - started)))
            now = time.perf_counter() - started
            count = max(1, sum(when <= now for when in due[: len(self._images)]))
            self._run(count)
            outcome.seconds = time.perf_counter() - started
            for when in due[:count]:
                outcome.count(200, outcome.seconds - when)
            del due[:count]
        return outcome
