"""Settings → a firewall: the classifier loaded, and its detectors built and checked against it."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from app.firewall import Firewall
from app.settings import DetectorName, Settings
from detectors.base import Access, AccessError, Detector, UnsupportedNetwork
from detectors.deepsweep import deepsweep
from detectors.engine import build_engine
from detectors.frequency import Frequency
from detectors.ibd_psc import IbdPsc
from detectors.inconsistency import Inconsistency
from detectors.label_profile import LabelProfile
from detectors.packing import PackedNetwork, pack_network
from detectors.probes import PRESETS
from detectors.profile import Profile
from detectors.scale_up import ScaleUp
from detectors.shrinkpad import shrinkpad
from detectors.strip import Strip
from detectors.teco import TeCo
from detectors.tracing import Trace
from models.base import Classifier
from models.loading import load_bundle
from models.remote import Connection
from models.torch_module import TorchClassifier

__all__ = ["build_detectors", "build_firewall", "choose_device", "example_batch", "open_classifier"]

log = logging.getLogger("triggerwall.assembly")

NEEDS: dict[DetectorName, Access] = {
    "profile": Profile.needs,
    "psc": IbdPsc.needs,
    "spc": ScaleUp.needs,
    "nspc": ScaleUp.needs,
    "label_profile": LabelProfile.needs,
    "strip": Strip.needs,
    "teco": TeCo.needs,
    "shrinkpad": Inconsistency.needs,
    "deepsweep": Inconsistency.needs,
    "frequency": Frequency.needs,
}

OTHERWISE = {"torchscript": ", or export the network with torch.export or to ONNX, where it can be amplified"}
"""What else the operator of a backend can do to give more access."""

BUILDERS: dict[DetectorName, Callable[[Classifier], Detector]] = {
    "label_profile": LabelProfile,
    "teco": TeCo,
    "shrinkpad": shrinkpad,
    "deepsweep": deepsweep,
    "frequency": Frequency,
}
"""Those without settings."""


def build_firewall(settings: Settings, make: Callable[..., Firewall] = Firewall) -> Firewall:
    """Load the bundle and put the detectors that `settings` names before it, as `make`, called as
    `Firewall` is, puts them together.

    Raises a `ModelError` or a `DetectorError` whose text is one sentence for the operator.
    """
    classifier = open_classifier(settings)
    return make(
        classifier,
        build_detectors(classifier, settings),
        mode=settings.mode,
        thresholds=settings.thresholds,
        conditioning=settings.conditioning,
        ties=settings.ties,
        suspects=settings.suspects,
        fail_open=settings.remote_fail_open,
    )


def connection_of(settings: Settings) -> Connection:
    """How a remote classifier is reached; of no interest to the others."""
    credential = settings.remote_credential
    return Connection(
        url=settings.remote_url,
        credential=credential.get_secret_value() if credential is not None else None,
        credential_header=settings.remote_credential_header,
        ca_file=settings.remote_ca_file,
        timeout=settings.remote_timeout_s,
        retries=settings.remote_retries,
        concurrency=settings.remote_concurrency,
        breaker_failures=settings.remote_breaker_failures,
        breaker_rest=settings.remote_breaker_rest_s,
    )


def open_classifier(settings: Settings) -> Classifier:
    """The classifier of the bundle that `settings` names. Raises a `ModelError`."""
    device, connection = choose_device(settings.device), connection_of(settings)
    classifier = load_bundle(settings.bundle, device, connection, trusted=settings.trust_model_code)
    if settings.packed_weights and isinstance(classifier, TorchClassifier) and device.type == "cpu":
        _pack(classifier)
    return classifier


def _pack(classifier: TorchClassifier) -> None:
    """Let `classifier` compute with packed weights, where that gives the same logits."""
    try:
        classifier.runner = packed = pack_network(classifier.network, example_batch(classifier))
        classifier.engine = packed.engine
    except UnsupportedNetwork as error:
        classifier.engine = f"eager ({error})"
        log.info("the weights are not packed, and predictions take longer than they could: %s", error)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises `ValueError` for a device that cannot be used here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, and one this machine lacks
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used, try auto or cpu: {reason}") from error
    return device


def build_detectors(classifier: Classifier, settings: Settings) -> Sequence[Detector]:
    """The detectors in the order of the settings. Raises `DetectorError`."""
    return [_build_or_say(name, classifier, settings) for name in settings.detectors]


def _build_or_say(name: DetectorName, classifier: Classifier, settings: Settings) -> Detector:
    try:
        return _build(name, classifier, settings)
    except UnsupportedNetwork as error:
        others = ",".join(other for other in settings.detectors if other != name) or "profile,spc"
        raise UnsupportedNetwork(f"{error} (TRIGGERWALL_DETECTORS={others})") from error


def _build(name: DetectorName, classifier: Classifier, settings: Settings) -> Detector:
    info, needs = classifier.info, NEEDS[name]
    if not Access(info.access).grants(needs):
        raise AccessError(
            f"the detector {name} needs a classifier's {needs}, and {info.name} gives only {info.access}: "
            f"leave it out of `detectors`{OTHERWISE.get(info.backend, '')}"
        )
    if name == "psc":
        if info.layers is not None and not info.layers.amplified:
            raise UnsupportedNetwork(f"IBD-PSC amplifies BatchNorm layers: {info.layers.why_none()}")
        return IbdPsc(
            classifier,
            example_batch(classifier),
            omega=settings.psc_omega,
            n=settings.psc_n,
            xi=settings.psc_xi,
            engine=partial(
                build_engine,
                prefer=settings.psc_engine,
                dtype=getattr(torch, settings.psc_precision),
                channels_last=settings.psc_channels_last,
                fold=settings.psc_fold,
                compile=settings.psc_compile,
                traced=_shared_trace(classifier, settings),
            ),
            precision=settings.psc_precision,
        )
    if name == "profile":
        return Profile(classifier, PRESETS[settings.profile_preset])
    if name == "strip":
        return Strip(classifier, settings.strip_overlays, settings.strip_blend)
    if name in BUILDERS:
        return BUILDERS[name](classifier)
    return ScaleUp(classifier, settings.spc_scales, normalised=name == "nspc")


def _shared_trace(classifier: Classifier, settings: Settings) -> Trace | None:
    """The packed network, for the fork engine to share, unless it is asked for an arithmetic of its own."""
    runner = classifier.runner if isinstance(classifier, TorchClassifier) else None
    own = settings.psc_precision != "float32" or settings.psc_channels_last or settings.psc_compile
    return runner.trace if isinstance(runner, PackedNetwork) and not own else None


def example_batch(classifier: Classifier, images: int = 2) -> Tensor:
    """Images (images, C, H, W) of noise in [0, 1] around mid-grey, always the same, on the device."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, classifier.info.channels, *classifier.info.size)
    return (0.5 + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1).to(classifier.device)
