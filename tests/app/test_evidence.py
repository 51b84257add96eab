"""What is said about the model, beside what other models show."""

from typing import Any

import pytest

from app.evidence import model_evidence, reference_models, strongest
from models.base import ClassifierInfo

INFO = ClassifierInfo("m", "1", "d" * 64, "a", "torch", "weights", 3, ("x", "y", "z"), 1, (8, 8), "bilinear")


def figure(by: str, strength: float, share: float, label: int = 2) -> dict[str, Any]:
    return {"by": by, "strength": strength, "label": label, "share": share, "plain_share": 0.1}


def psc(*shares: float, k: int = 1, n: int = 2) -> dict[str, Any]:
    found = [figure("amplification", i, s) for i, s in enumerate(shares, start=1)]
    return {"fit": {"k": k, "n": n}, "behaviour": {"collapse": found}}


def model(by: str, strength: float, share: float, **changes: Any) -> dict[str, Any]:
    plain = {"channels": 1, "digest": "e", "backdoored": False, "collapse": [figure(by, strength, share)]}
    return {**plain, **changes}


def test_amplification_is_taken_where_psc_uses_it() -> None:
    (found,) = model_evidence([psc(0.2, 0.82, 0.99)], INFO, [])
    assert (found["strength"], found["share"], found["name"]) == (2, 0.82, "z")
    assert found["sentence"] == (
        "benign images collapse into class 2 (z) under amplification: 0.82, where 0.10 are predicted so "
        "anyway; no benign model of this kind was measured to compare with"
    )


@pytest.mark.parametrize(
    ("share", "others", "words"),
    [
        (0.5, 1, "2 benign models measured show as much (0.40–0.60), so this is no sign of a backdoor"),
        (0.3, 1, "2 benign models measured show as much (0.40–0.60)"),
        (0.7, 1, "show less (0.40–0.60), but that happens to one benign model in 3: measure more of them"),
        (
            0.7,
            18,
            "19 benign models measured show less (0.40–0.60): look closer at where this model comes from",
        ),
        (0.12, 1, "that is hardly a collapse"),
    ],
)
def test_it_is_compared_with_benign_models(share: float, others: int, words: str) -> None:
    """At whatever depth IBD-PSC uses of them: only that is alike."""
    models = [model("amplification", 12, 0.4), *[model("amplification", 14, 0.6)] * others]
    models.append(model("amplification", 14, 0.99, backdoored=True))
    (found,) = model_evidence([psc(0, share)], INFO, models)
    assert words in found["sentence"]
    assert found["benign_models"] == [0.4, *[0.6] * others]
    assert found["backdoored_models"] == [0.99]


def test_what_is_not_alike_is_left_out() -> None:
    models = [
        model("scaling", 3.0, 0.1, channels=3),
        model("scaling", 5.0, 0.2),
        model("scaling", 3.0, 0.3, digest=INFO.digest),
        model("scaling", 3.0, 0.4, backdoored=None),
    ]
    detectors = [{"fit": {}, "behaviour": {"collapse": [figure("scaling", 3.0, 0.9)]}}]
    (found,) = model_evidence(detectors, INFO, models)
    assert (found["benign_models"], found["backdoored_models"]) == ([], [])


def test_two_detectors_that_ask_the_same_are_one_entry_and_the_strongest_is_told() -> None:
    scales = [figure("scaling", 3.0, 0.2), figure("scaling", 11.0, 0.3)]
    spc = {"fit": {}, "behaviour": {"collapse": scales}}
    found = model_evidence([spc, spc, psc(0, 0.5), {"fit": {}, "behaviour": None}], INFO, [])
    assert len(found) == 3
    assert [(each["by"], each["strength"]) for each in strongest(found)] == [
        ("amplification", 2),
        ("scaling", 11.0),
    ]


def test_the_measured_models_are_complete() -> None:
    assert {each["backdoored"] for each in reference_models()} == {True, False}
    for each in reference_models():
        assert {c["by"] for c in each["collapse"]} == {"amplification", "scaling"}
        assert all(0 < c["share"] <= 1 for c in each["collapse"])
        assert each["training"]
