"""What can go wrong between a bundle directory and a running classifier.

ModelError
 ├─ BundleError        the directory or its model.yaml is not a bundle
 │   ├─ WeightsError   the weights file cannot be used as it is
 │   └─ ArchitectureError  the network cannot be built, or the weights do not fit it
 └─ InputError         a tensor that this classifier cannot take
"""

__all__ = ["ArchitectureError", "BundleError", "InputError", "ModelError", "WeightsError"]


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
