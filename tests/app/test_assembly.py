"""Settings → a firewall, or one sentence why not."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from app.assembly import NEEDS, build_detectors, build_firewall, choose_device, example_batch
from app.settings import DetectorName, Settings
from detectors.base import AccessError, UnsupportedNetwork
from detectors.ibd_psc import IbdPsc
from detectors.probes import DEFAULT_PRESET, PRESETS
from detectors.scale_up import ScaleUp
from models.errors import BundleError
from models.torch_module import TorchClassifier
from tests.app.conftest import MakeSettings


def test_detectors_in_the_order_of_the_settings(make_settings: MakeSettings) -> None:
    firewall = build_firewall(
        make_settings(detectors=("nspc", "psc", "spc"), psc_n=2, psc_xi=0.5, spc_scales=(2, 3))
    )
    nspc, psc, spc = firewall.detectors
    assert [each.name for each in firewall.detectors] == ["nspc", "psc", "spc"]
    assert isinstance(psc, IbdPsc)
    assert (psc.n, psc.xi, psc.omega, len(psc.order)) == (2, 0.5, 1.5, 3)
    assert isinstance(nspc, ScaleUp)
    assert (nspc.normalised, nspc.scales) == (True, (2, 3))
    assert spc.settings() == {"scales": [2, 3]}


def test_every_name_builds_its_detector(make_settings: MakeSettings) -> None:
    names = get_args(DetectorName)
    firewall = build_firewall(
        make_settings(detectors=names, psc_n=2, strip_overlays=7, strip_blend="superimposed")
    )
    assert tuple(each.name for each in firewall.detectors) == names
    assert set(NEEDS) == set(names)
    assert all(each.needs == NEEDS[name] for each, name in zip(firewall.detectors, names, strict=True))
    strip = firewall.detectors[names.index("strip")]
    assert strip.settings() == {"overlays": 7, "blend": "superimposed"}
    assert firewall.references == 7


def test_a_bundle_that_is_not_there(make_settings: MakeSettings) -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        build_firewall(make_settings(bundle="/nowhere"))


def test_a_detector_that_needs_more_than_the_classifier_gives(make_settings: MakeSettings) -> None:
    settings = make_settings(detectors=("psc",))
    classifier = build_firewall(settings).classifier
    assert isinstance(classifier, TorchClassifier)
    classifier.info = replace(classifier.info, access="probabilities")
    with pytest.raises(
        AccessError, match="psc needs a classifier's weights, and tiny gives only probabilities"
    ):
        build_detectors(classifier, settings)


def test_a_network_without_batchnorm(make_settings: MakeSettings) -> None:
    settings = make_settings(detectors=("psc",))
    classifier = build_firewall(settings).classifier
    assert isinstance(classifier, TorchClassifier)
    classifier.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with pytest.raises(UnsupportedNetwork, match="TRIGGERWALL_DETECTORS=profile,spc"):
        build_detectors(classifier, settings)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="try auto or cpu"):
        choose_device("gpu!")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="try auto or cpu"):
            choose_device("cuda")


def test_the_example_is_always_the_same(make_settings: MakeSettings) -> None:
    classifier = build_firewall(make_settings()).classifier
    example = example_batch(classifier, 3)
    assert example.shape == (3, 1, 8, 8)
    assert 0 <= example.min() < example.max() <= 1
    assert torch.equal(example, example_batch(classifier, 3))


def test_a_preset_chooses_the_profiles_ladder(make_settings: MakeSettings) -> None:
    assert Settings.model_fields["profile_preset"].default == DEFAULT_PRESET
    for name, ladder in PRESETS.items():
        firewall = build_firewall(make_settings(detectors=("profile",), profile_preset=name))
        assert firewall.detectors[0].ladder == ladder  # type: ignore[attr-defined]
