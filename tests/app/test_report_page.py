"""The page of reports that are out of the ordinary; the ordinary ones are asked for over HTTP."""

from typing import Any

from app.report_page import report_page
from tests.app.test_plots import part, row

REPORT: dict[str, Any] = {
    "id": "a-1", "created_at": "2026-03-04T05:06:07Z", "active": False, "alpha": 0.01, "images": 2000,
    "model": {"name": "tiny", "version": "1", "digest": "d" * 64}, "labelled": False, "smallest_alpha": 0.001,
    "benign_accuracy": None, "conditioning": "class", "passes": None, "evidence": [], "warnings": [],
    "skipped_images": 0, "skipped": [],
}  # fmt: skip


def detector(**changes: Any) -> dict[str, Any]:
    more = {"power": "weak: no power", "smallest_alpha": 0.001, "settings": {"n": "×"}, "fit": {}}
    return {**part(row(0)), **more, **changes}


def page(*detectors: dict[str, Any], **changes: Any) -> str:
    return " ".join(report_page({**REPORT, "detectors": list(detectors), **changes}).split())


def test_a_report_of_an_older_release() -> None:
    """No distributions, no cost, no engine: what there is is shown."""
    old = {name: value for name, value in detector().items() if name not in ("histogram", "cost", "engine")}
    found = page(old)
    assert "made by an older release" in found
    assert "No power." in found
    assert found.count("<figure>") == 0
    assert "Is the model itself suspect?" not in found


def test_fixed_thresholds_are_not_called_a_budget() -> None:
    found = page(detector(thresholds="fixed"))
    assert "at the paper’s fixed threshold" in found
    assert "its budget is" not in found


def test_many_labels_are_not_all_drawn_and_the_page_says_so() -> None:
    rows = [row(n) for n in range(1000)]
    found = page(detector(classes=rows))
    assert "24 of 1000 labels" in found
    assert len(found) < 120_000


def test_what_was_left_out_is_named_and_escaped() -> None:
    skipped = [{"part": f"<{n}>.png", "detail": "x"} for n in range(7)]
    found = page(detector(), skipped=skipped, skipped_images=7)
    assert "7 images that could not be read: &lt;0&gt;.png" in found
    assert "&lt;4&gt;.png, …" in found


def test_settings_are_shown_as_they_are() -> None:
    assert "{&#34;n&#34;: &#34;×&#34;}" in page(detector())
