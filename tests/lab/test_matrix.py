from pathlib import Path
from typing import Any

import pytest

from lab.data import LabError
from lab.matrix import Matrix, expand, read_matrix


def matrix(*runs: dict[str, Any], **defaults: Any) -> Matrix:
    return Matrix(data="x.zip", out=Path("runs"), defaults=defaults, runs=runs)


def test_every_combination_of_lists_in_the_order_of_the_file() -> None:
    both = matrix(
        {"attack": ["badnets", "blend"], "poison_rate": [0.01, 0.1]},
        {"attack": "wanet", "seed": 3, "epochs": 2},
        {"attack": "wanet"},
        epochs=7,
        target=4,
    )
    settings = expand(both)
    assert [(s.attack, s.poison_rate, s.epochs, s.target, s.seed) for s in settings] == [
        ("badnets", 0.01, 7, 4, 0), ("badnets", 0.1, 7, 4, 0), ("blend", 0.01, 7, 4, 0),
        ("blend", 0.1, 7, 4, 0), ("wanet", 0.1, 2, 4, 3), ("wanet", 0.1, 7, 4, 0),
    ]  # fmt: skip
    assert [s.name for s in settings] == [
        "resnet20-badnets-poison_rate_0.01", "resnet20-badnets-poison_rate_0.1",
        "resnet20-blend-poison_rate_0.01", "resnet20-blend-poison_rate_0.1", "resnet20-wanet-seed_3-epochs_2",
        "resnet20-wanet",
    ]  # fmt: skip


def test_lists_among_the_defaults_count_for_every_run() -> None:
    runs = [{"attack": "none"}, {"attack": None, "name": "second"}]
    settings = expand(matrix(*runs, epochs=[1, 2]))
    assert [(s.name, s.attack, s.epochs) for s in settings] == [
        ("resnet20-benign-epochs_1", None, 1), ("resnet20-benign-epochs_2", None, 2),
        ("second-epochs_1", None, 1), ("second-epochs_2", None, 2),
    ]  # fmt: skip


def test_names_given_and_names_made() -> None:
    runs = [
        {"name": "mine"},
        {"name": "both", "attack": ["none", "blend"]},
        {"architecture": ["zoo:resnet20", "torchvision:resnet18"], "attack": "bpp"},
        {"attack": "blend", "attack_settings": [{"alpha": 0.1}, {"alpha": 0.3, "seed": 1}]},
    ]
    assert [s.name for s in expand(matrix(*runs))] == [
        "mine", "both-benign", "both-blend", "resnet20-bpp", "resnet18-bpp",
        "resnet20-blend-attack_settings_alpha_0.1", "resnet20-blend-attack_settings_alpha_0.3_seed_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (
            [{"epochs": 0}],
            "run resnet20-badnets-epochs_0: epochs: Input should be greater than or equal to 1",
        ),
        ([{"wings": 2}], "run resnet20-badnets-wings_2: wings: Extra inputs are not permitted"),
        ([{"name": "a b"}, {"name": "a b"}], "two runs are called a b"),
        ([{"objective": "hide"}], "objective: Input should be"),
        ([{"seed": [1, 1]}], "two runs are called resnet20-badnets-seed_1"),
    ],
)
def test_runs_that_cannot_be(runs: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        expand(matrix(*runs))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: x.zip\nout: runs\nruns: []", "name runs to train, or bundles to judge"),
        ("data: x.zip\nout: runs\nbundles: [runs/a]", "bundles are there to be judged: add `evaluate`"),
        ("data: x.zip\nout: runs\nruns: [{}]\nevaluate: {noise: 1}", "evaluate.noise: Input should"),
        ("data: x.zip\nruns: [{}]", "out: Field required"),
        (
            "data: x.zip\nout: runs\nruns: [{}]\nevaluate: {calibration: 3}",
            "evaluate.calibration: Input should",
        ),
        ("data: x.zip\nout: runs\nrun: [{}]", "run: Extra inputs"),
        ("- 1", "file: Input should be a valid dictionary"),
        ("a: [", "cannot be read"),
    ],
)
def test_files_that_are_no_study(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(LabError, match=sentence):
        read_matrix(tmp_path / "study.yaml")
    with pytest.raises(LabError, match="cannot be read"):
        read_matrix(tmp_path / "nothing.yaml")
