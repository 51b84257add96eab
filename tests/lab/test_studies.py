"""The studies in the repository can be read, name every attack, and are what they say."""

from pathlib import Path

import pytest

from lab.attacks import ATTACKS
from lab.matrix import expand, read_matrix
from lab.record import build_attack

STUDIES = sorted((Path(__file__).parents[2] / "lab" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_can_be_read_and_its_attacks_exist(path: Path) -> None:
    matrix = read_matrix(path)
    assert matrix.out == Path("runs") / path.stem
    assert matrix.evaluate is not None
    for settings in expand(matrix):
        if settings.attack is not None:
            build_attack(settings.attack, settings.attack_settings)


def test_one_study_has_every_attack_and_a_benign_model() -> None:
    path = next(path for path in STUDIES if path.stem == "cifar10-resnet20")
    assert {each.attack for each in expand(read_matrix(path))} == {None, *ATTACKS}


def test_the_review_has_both_networks_three_rates_and_three_targets() -> None:
    path = next(path for path in STUDIES if path.stem == "mnist-review")
    attacked = [each for each in expand(read_matrix(path)) if each.attack is not None]
    assert len({(each.architecture, each.poison_rate, each.target) for each in attacked}) == 18
