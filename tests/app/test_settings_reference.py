"""The page of all settings."""

from pathlib import Path

from app.settings import Settings
from app.settings_reference import markdown, settings_facts

FACTS = {each.name: each for each in settings_facts()}


def test_every_setting_is_there_and_described() -> None:
    assert list(FACTS) == list(Settings.model_fields)
    assert [name for name, each in FACTS.items() if not each.description] == []


def test_what_a_setting_takes() -> None:
    alpha = FACTS["alpha"]
    assert (alpha.variable, alpha.takes, alpha.default) == ("TRIGGERWALL_ALPHA", "number, > 0, < 1", "`0.01`")
    assert FACTS["mode"].takes == "`enforce` or `monitor`"
    assert (FACTS["spc_scales"].takes, FACTS["spc_scales"].default) == ("list of number", "`3,5,7,9,11`")
    assert (FACTS["admin_port"].takes, FACTS["admin_port"].default) == ("integer, ≥ 1, ≤ 65,535", "–")
    assert (FACTS["caller_keys"].takes, FACTS["caller_keys"].default) == ("list of name:secret", "–")
    assert FACTS["psc_fold"].takes == "true or false"
    assert FACTS["drift_run_length"].takes == "number, ≥ 1,000, ≤ 1e+12"


def test_the_page_in_the_repository_is_this_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "run: triggerwall settings --markdown > docs/settings.md"
    )
