"""Ways of asking, judged on made-up banks whose outcome is known."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detectors.label_profile import LabelProfile
from detectors.probes import PROBES, Ladder
from detectors.profile import Profile
from lab.bank import Answers, Bank, write_bank
from lab.cli import app
from lab.one_class import ONE_CLASS
from lab.probing import candidates, choose, held_out, judge

NAMES = tuple(PROBES)


def answers(count: int, seed: int, tells: str | None = None) -> Answers:
    """Log-odds around 5 that hang together, of labels 0 and 1; with `tells`, of label 0 and 12 lower under
    that probe."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 2, count) if tells is None else np.zeros(count, dtype=np.int64)
    odds = 5 + rng.standard_normal((count, 1)) + rng.standard_normal((count, 1 + len(NAMES)))
    if tells is not None:
        odds[:, 1 + NAMES.index(tells)] -= 12
    return Answers(predicted, odds, (odds[:, 1:] > 0).astype(float))


def bank(attack: str, tells: str, seed: int) -> Bank:
    return Bank(
        f"model-{attack}", attack, 0, 2, NAMES, answers(400, seed), answers(400, seed + 1),
        answers(200, seed + 2, tells), {"darker": answers(400, seed + 3, tells)},
    )  # fmt: skip


BLUR, WARP, GREY = bank("one", "blur", 10), bank("two", "warp", 20), bank("three", "grey", 30)


def test_a_probe_that_tells_is_seen_and_one_that_does_not_is_not() -> None:
    seeing = judge(BLUR, "blur", partial(Profile, ladder=Ladder.of(["blur"])))
    blind = judge(BLUR, "warp", partial(Profile, ladder=Ladder.of(["warp"])))
    assert seeing.tpr["0.01"] > 0.95
    assert blind.tpr["0.05"] < 0.2
    assert seeing.auroc is not None and seeing.auroc > 0.99  # noqa: PT018
    assert max(seeing.fpr["0.05"], blind.fpr["0.05"]) < 0.1
    assert seeing.passes == (1.0, 1.0)
    assert seeing.shifts == {"darker": pytest.approx(1.0, abs=0.05)}


@pytest.mark.parametrize("name", ONE_CLASS)
def test_every_one_class_model_sees_what_is_plain(name: str) -> None:
    build = partial(ONE_CLASS[name], ladder=Ladder.of(["blur", "warp"]))
    found = judge(BLUR, name, build)
    assert found.tpr["0.05"] > 0.7
    assert found.fpr["0.05"] < 0.12


def test_labels_alone_see_less() -> None:
    found = judge(BLUR, "labels", partial(LabelProfile, probes=Ladder.of(["blur", "warp"]).probes))
    assert found.auroc is not None and found.auroc > 0.9  # noqa: PT018


def test_fewer_images_to_calibrate_on_are_the_first_ones() -> None:
    build = partial(Profile, ladder=Ladder.of(["blur"]))
    fewer = judge(BLUR, "", build, calibration=150)
    assert fewer == judge(replace(BLUR, calibration=BLUR.calibration.first(150)), "", build)


def test_probes_are_chosen_by_what_they_tell() -> None:
    assert set(choose([BLUR, WARP], most=2)) == {"blur", "warp"}
    assert choose([GREY], most=1) == ["grey"]


def test_an_attack_has_no_part_in_the_choice_of_its_own_probes() -> None:
    rows = held_out([BLUR, WARP, replace(BLUR, attack=None, poisoned=None)], most=1)
    assert {row.model: row.way for row in rows} == {"model-one": "warp", "model-two": "blur"}
    assert all(row.tpr["0.05"] < 0.2 for row in rows)


def test_a_model_without_a_backdoor_has_rates_of_benign_images_only() -> None:
    found = judge(replace(BLUR, attack=None, poisoned=None), "", candidates()["fast"])
    assert (found.auroc, found.tpr, found.passes[1]) == (None, {}, None)
    assert 0 < found.fpr["0.05"] < 0.12


def test_the_command_judges_every_way_on_every_bank(tmp_path: Path) -> None:
    for each in (BLUR, WARP):
        write_bank(tmp_path / f"{each.model}.npz", each)
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, ["probes", "--banks", str(tmp_path), "--most", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert {(row["model"], row["way"]) for row in rows} >= {
        (each.model, way) for each in (BLUR, WARP) for way in candidates()
    }


def test_no_banks_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["probes", "--banks", str(tmp_path)])
    assert result.exit_code == 2
    assert "measure-probes" in result.output
