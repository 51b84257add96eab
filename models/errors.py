"""What can go wrong between a bundle directory and a running classifier.

ModelError
 ├─ BundleError        the directory or its model.yaml is not a bundle
 │   ├─ WeightsError   the weights file cannot be used as it is
 │   └─ ArchitectureError  the network cannot be built, or the weights do not fit it
 ├─ InputError         a tensor that this classifier cannot take
 └─ UpstreamError      a remote classifier gave no usable answer
     ├─ UpstreamUnavailable  it cannot be reached, is overloaded, or has failed so often that it is left alone
     ├─ UpstreamTimeout      it did not answer in time
     └─ BadUpstreamAnswer    it refused, or its answer makes no sense
"""

__all__ = [
    "ArchitectureError",
    "BadUpstreamAnswer",
    "BundleError",
    "InputError",
    "ModelError",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "WeightsError",
]


class ModelError(Exception):
    """Base of every error of `models`; its text says what the caller can do."""


class BundleError(ModelError):
    """Raised while a bundle is read: a missing directory, or a model.yaml with a wrong or missing field."""


class WeightsError(BundleError):
    """Raised while weights are read: an unknown format, a pickled model, a broken file."""


class ArchitectureError(BundleError):
    """Raised while the network is built: an unknown name, wrong arguments, weights of another network."""


class InputError(ModelError):
    """Raised when a classifier is called with a tensor of the wrong shape or type."""


class UpstreamError(ModelError):
    """Base of what a remote classifier does wrong. Its text may be shown to the gateway's callers: it names
    neither the endpoint nor what that said."""


class UpstreamUnavailable(UpstreamError):  # noqa: N818  (it names what the remote classifier is)
    """Raised where it cannot be reached or says that it is busy; no fault of what was asked."""

    def __init__(self, detail: str, asked_to_wait: float = 0.0) -> None:
        """`asked_to_wait`: seconds before the next attempt, where the remote classifier named them."""
        super().__init__(detail)
        self.asked_to_wait = asked_to_wait
        self.retry_after = max(asked_to_wait, 1.0)  # what the gateway's own callers are told


class UpstreamTimeout(UpstreamError):  # noqa: N818
    """Raised where no whole answer came in time."""


class BadUpstreamAnswer(UpstreamError):  # noqa: N818
    """Raised for a refusal, and for an answer of the wrong form, length or range."""
