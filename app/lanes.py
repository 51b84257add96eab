"""How many batches are judged at once, and on how many cores each.

Two cores that compute one batch together wait for each other after every operator, and whatever else runs on
one of them stops both. With a batch each, they do not (docs/adr/0020).
"""

import threading

import torch

from detectors.packing import PackedNetwork
from models.base import Classifier
from models.torch_module import TorchClassifier

__all__ = ["MOST", "divide_cores", "lanes_for"]

_dividing = threading.Lock()
MOST = 4  # unless told otherwise: a single image has a lane's cores only, and a batch its memory


def lanes_for(classifier: Classifier, wanted: int | None = None) -> int:
    """Lanes for images of `classifier`: `wanted`, or one a core and `MOST` at most.

    One alone where batches would gain nothing by it (a GPU, an endpoint) or could meet: a network that could
    not be traced may keep things of one batch on itself, where another finds them.
    """
    traced = isinstance(classifier, TorchClassifier) and isinstance(classifier.runner, PackedNetwork)
    if not traced:
        return 1
    return wanted or min(torch.get_num_threads(), MOST)


def divide_cores(cores: int, lanes: int) -> None:
    """Leave the running thread, a new one, its share of the `cores` that torch's operators use in all.

    torch keeps one number for each thread and one that new threads begin with. Setting the former sets the
    latter too, so that is put back, on a thread that ends.
    """
    with _dividing:  # lanes begin together, and none may see what another is about to put back
        torch.get_num_threads()  # a thread takes the common number over when it is first asked
        torch.set_num_threads(max(1, cores // lanes))
        restoring = threading.Thread(target=torch.set_num_threads, args=(cores,))
        restoring.start()
        restoring.join()
