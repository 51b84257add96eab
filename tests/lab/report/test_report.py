"""The report of a made-up study: one attack that took, one that did not, a benign model, one not judged."""

import json
import xml.dom.minidom
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.data import LabError
from lab.figures import Kind, Scored, figures_of, write_scores
from lab.metrics import auroc
from lab.report.markdown import to_markdown
from lab.report.page import to_page
from lab.report.plots import filled, histogram, roc, roc_points
from lab.report.results import read_study
from lab.report.summary import MARK
from lab.report.tables import Table, figure_tables, models_table

NASTY = "<script>alert(1)</script>|*x*"
RNG = np.random.default_rng(0)


def kind(scores: np.ndarray) -> Kind:
    return Kind(scores, np.arange(len(scores)) % 2, 2.0, 2.5, 0.004, 0)


def scored(name: str, lift: float | None) -> Scored:
    limits = {"0.01": np.full(3, 0.9), "0.05": np.full(3, 0.5), "fixed": np.full(3, 0.2)}
    benign = np.linspace(0, 1, 40)
    if lift is None:
        return Scored(name, None, limits, kind(benign), None)
    return Scored(name, 0, limits, kind(benign), kind((benign + lift) / (1 + lift)))


def bundle(folder: Path, attack: str | None, asr: float | None, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    record = {
        "settings": {"name": folder.name, "attack": attack, **settings},
        "benign_accuracy": 0.8125,
        "attack_success_rate": asr,
    }
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def judge(folder: Path, *lines: Scored) -> None:
    (folder / "evaluation.json").write_text(json.dumps([asdict(figures_of(each)) for each in lines]))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    first = bundle(runs / "badnets", "badnets", 0.99)
    lines = scored("spc", 1.0), scored("psc", 3.0)
    judge(first, *lines)
    write_scores(first / "scores.npz", lines)
    judge(bundle(runs / "faint", "blend", 0.42, architecture=NASTY), scored("spc", 0.1))
    judge(bundle(runs / "benign", None, None), scored("spc", None))
    bundle(runs / "later", "wanet", 0.97)
    return runs


def table(tables: list[Table], title: str) -> dict[str, tuple[str, ...]]:
    found = next(each for each in tables if each.title == title)
    return {row[0]: row[1:] for row in (found.headings, *found.rows)}


def test_every_model_is_listed_with_its_state(study: Path) -> None:
    rows = {row[0]: row[4:] for row in models_table(read_study(study)).rows}
    assert rows == {
        "badnets": ("0.812", "0.990", "took"),
        "benign": ("0.812", "—", "benign model"),
        "faint": ("0.812", "0.420", "did not take (ASR < 0.9)"),
        "later": ("0.812", "0.970", "took; not judged yet"),
    }


def test_means_are_of_attacks_that_took(study: Path) -> None:
    tables = figure_tables(read_study(study))
    tpr = table(tables, "TPR at 5 %")
    assert tpr["detector"] == (
        "badnets",
        "faint (did not take (ASR < 0.9))",
        "mean of those that took (n = 1)",
    )
    expected = float((((np.linspace(0, 1, 40) + 1) / 2) > 0.5).mean())
    assert (tpr["spc"][0], tpr["spc"][2]) == (f"{expected:.3f}",) * 2
    assert tpr["psc"] == ("1.000", "—", "1.000")
    area = table(tables, "AUROC")["spc"]
    benign = np.linspace(0, 1, 40)
    assert area[0].startswith(f"{auroc(benign, (benign + 1) / 2):.3f} (")
    assert "(" not in area[2]


def test_a_mean_says_of_how_many_models_it_is(study: Path) -> None:
    judge(study / "later", scored("spc", 1.0))
    rows = table(figure_tables(read_study(study)), "TPR at 5 %")
    assert rows["psc"][-1] == "1.000 (of 1)"
    assert rows["detector"][-1] == "mean of those that took (n = 2)"


def test_benign_models_have_false_positives_only(study: Path) -> None:
    tables = figure_tables(read_study(study))
    assert "benign (benign)" in table(tables, "FPR at 5 %")["detector"]
    assert "benign (benign)" not in table(tables, "AUROC")["detector"]
    assert table(tables, "FPR at 5 %")["spc"] == ("0.500",) * 4  # three models, and the mean


def test_evaluations_of_older_releases_are_read(study: Path) -> None:
    old = {"detector": "spc", "auroc": 0.75, "target_auroc": None, "tpr": {"0.05": 0.5},
           "fpr": {"0.05": 0.04}, "terms": [3.0, 4.0], "judged": 80, "unequal": 0}  # fmt: skip
    (study / "later" / "evaluation.json").write_text(json.dumps([old]))
    tables = figure_tables(read_study(study))
    assert table(tables, "AUROC")["spc"][2] == "0.750"
    assert table(tables, "F1 at 5 %")["spc"][2] == "—"


@pytest.mark.parametrize("content", ["{", "{}", '[{"detector": "spc", "auroc": NaN}]', "[1]"])
def test_a_damaged_evaluation_is_told(study: Path, content: str) -> None:
    (study / "later" / "evaluation.json").write_text(content)
    state = models_table(read_study(study)).rows[3][-1]
    assert state.startswith("took; its evaluation cannot be read: ")


@pytest.mark.parametrize("content", [b"", b"PK nothing"])
def test_damaged_scores_and_records_are_told(study: Path, content: bytes) -> None:
    (study / "badnets" / "scores.npz").write_bytes(content)
    (study / "later" / "training.json").write_text("{}")
    rows = models_table(read_study(study)).rows
    assert rows[0][-1] == "took; its scores cannot be read"
    assert table(figure_tables(read_study(study)), "AUROC")["psc"][0] != "—"
    assert rows[3][-1] == "training.json cannot be read"


def test_a_folder_without_bundles(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="give the folder"):
        read_study(tmp_path)


def test_the_command_writes_both_and_escapes_every_name(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = CliRunner().invoke(app, ["report", str(study), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "3 of 4 models judged" in " ".join(result.output.split())
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert NASTY.split("|")[0] not in page + text
    assert "&lt;script&gt;" in page
    assert r"\<script\>alert(1)\</script\>\|\*x\*" in text
    assert page.count("<svg") == 3  # one ROC plot, two histograms
    assert all(word not in page for word in ("http", "src=", "href=", "<script"))
    lines = [line for line in text.splitlines() if line.startswith("| badnets")]
    assert lines == ["| badnets | zoo:resnet20 | badnets | 0 | 0.812 | 0.990 | took |"] or lines[0].endswith(
        "took |"
    )
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "none"), "--out", str(out)])
    assert missing.exit_code == 2


def curve(*mean: float) -> dict[str, list[float]]:
    at = list(range(len(mean)))
    return {"at": at, "mean": list(mean), "low": [0.0] * len(mean), "high": [1.0] * len(mean)}


def extras(folder: Path) -> None:
    behaviour = {
        "images": 2,
        "amplification": {"benign": curve(1, 0.5, 0), "poisoned": curve(1, 1, 1)},
        "scaling": {"benign": curve(1, 0)},
        "features": {"explained": 0.5, "benign": [[0, 0], [1, 1]], "benign_labels": [0, 2],
                     "poisoned": [[2, 4]]},
    }  # fmt: skip
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    (folder / "triggers.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    setting = {"parameter": "ω", "detector": "psc", "auroc": 0.75, "tpr": 0.5, "fpr": 0.25}
    rows = [{**setting, "value": value, "usual": value == "1.5"} for value in ("1.2", "1.5", "2")]
    (folder / "ablation.json").write_text(json.dumps(rows))
    noisy = [asdict(figures_of(scored("spc", 1.0))) | {"noise": 0.02}]
    (folder / "evaluation-noise.json").write_text(json.dumps(noisy))


def test_behaviour_ablations_noise_and_triggers_are_shown(study: Path) -> None:
    extras(study / "badnets")
    bundles = read_study(study)
    page = to_page("S", bundles)
    assert page.count("<svg") == 3 + 2 + 1 + 1  # scores, curves, features, one setting
    assert page.count('class="dot benign"') == page.count('class="dot aimed"') == 1
    # Half of the layers amplified, a mean of 0.5: half-way along both axes, 52 to 446 and 270 to 26.
    assert "249.0,148.0" in page
    assert page.count('class="usual"') == 1
    assert 'src="data:image/png;base64,iVBORw0KGgpyZXN0"' in page
    assert page.replace('src="data:', "").count("src=") == 0
    area = table(figure_tables(bundles), "AUROC, noisy images")
    assert area["spc"][0].startswith(table(figure_tables(bundles), "AUROC")["spc"][0][:5])
    text = to_markdown("S", bundles)
    assert "| ω | psc | 1.5 (usual) | 0.750 | — | 0.500 | 0.250 | — | — |" in text
    assert "badnets: FPR by class" in text


@pytest.mark.parametrize("name", ["behaviour.json", "ablation.json", "triggers.png", "evaluation-noise.json"])
def test_damaged_extras_are_told_and_cost_nothing_else(study: Path, name: str) -> None:
    extras(study / "badnets")
    (study / "badnets" / name).write_bytes(b"[{}")
    bundles = read_study(study)
    assert models_table(bundles).rows[0][-1].startswith("took; its ")
    assert table(figure_tables(bundles), "AUROC")["psc"][0] != "—"
    to_page("S", bundles)


def test_poisoning_rates_are_compared_where_nothing_else_differs(study: Path) -> None:
    assert all(each.title != "Poisoning rate" for each in figure_tables(read_study(study)))
    judge(bundle(study / "few", "badnets", 0.97, poison_rate=0.005), scored("spc", 0.5))
    other = bundle(study / "hidden", "badnets", 0.97, poison_rate=0.01, objective="psc1")
    judge(other, scored("spc", 0.5))
    rows = next(each for each in figure_tables(read_study(study)) if each.title == "Poisoning rate").rows
    assert [row[:3] for row in rows] == [("few", "0.5 %", "0.970"), ("badnets", "10 %", "0.990")]


def test_markdown_rows_are_as_wide_as_their_headings(study: Path) -> None:
    for each in to_markdown("S", read_study(study)).split("\n## ")[1:]:
        widths = {line.replace(r"\|", "").count("|") for line in each.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_roc_points_by_hand_and_by_area() -> None:
    points = roc_points(np.array([0.2, 0.5]), np.array([0.9, 0.2]))
    assert points.tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [1, 1]]
    benign, poisoned = RNG.normal(0, 1, 80).round(1), RNG.normal(1, 1, 60).round(1)
    x, y = roc_points(benign, poisoned).T
    assert float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum()) == pytest.approx(auroc(benign, poisoned))


def test_tied_scores_are_drawn_as_chance_is() -> None:
    """One score for all: the curve is the chance line, bent by the root scale as that is."""
    points = filled(roc_points(np.zeros(5), np.zeros(3)))
    assert len(points) == 101
    assert points[:, 0].tolist() == pytest.approx(points[:, 1].tolist())
    steep = np.array([[0.0, 0.0], [0.0, 1.0], [0.02, 1.0]])
    assert filled(steep).tolist() == [[0, 0], [0, 1], [0.01, 1], [0.02, 1]]


@pytest.mark.parametrize("values", [np.zeros(3), np.array([-5.0, 0, 1e6]), np.array([0, 3.0, 1e6])])
def test_plots_are_well_formed_for_any_scores(values: np.ndarray) -> None:
    for drawing in (histogram("<a>", values, values + 1), roc({"<a>": (values, values + 1)})):
        text = str(drawing)
        xml.dom.minidom.parseString(text)
        assert "nan" not in text
        assert "<a>" not in text


def test_a_page_of_results_keeps_what_was_written_below_its_mark(study: Path, tmp_path: Path) -> None:
    page = tmp_path / "results" / "s.md"
    words = ["report", str(study), "--out", str(tmp_path / "r"), "--page", str(page), "--title", "Small"]
    result = CliRunner().invoke(app, [*words, "--command", "triggerwall lab study s.yaml"])
    assert result.exit_code == 0, result.output
    first = page.read_text()
    assert first.startswith("# Small\n")
    assert "```sh\ntriggerwall lab study s.yaml\n```" in first
    assert "Not written yet." in first
    rates = [
        [f"{value:.3f}".removeprefix("0") for value in (row.tpr["0.05"], row.fpr["0.05"])]
        for row in read_study(study)[0].rows.values()
    ]
    line = " | ".join(["badnets", *(" / ".join(pair) for pair in rates)])
    assert f"| {line} |" in first.partition("## Stopped at 5 %")[2]
    page.write_text(first.partition(MARK)[0].replace("Small", "Old") + MARK + "\nMine.\n")
    assert CliRunner().invoke(app, words).exit_code == 0
    again = page.read_text()
    assert again.startswith("# Small\n")
    assert again.endswith(f"{MARK}\nMine.\n")
    assert "Not written yet." not in again
    assert NASTY.split("|")[0] not in again
