"""Settings: where they come from, which source wins, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from app.policy import Mode
from app.settings import Settings, SettingsError


def test_defaults_are_consistent() -> None:
    settings = Settings()
    assert (settings.mode, settings.alpha, settings.detectors) == (
        Mode.ENFORCE,
        0.01,
        ("profile", "psc", "spc"),
    )
    assert settings.spc_scales == (3, 5, 7, 9, 11)
    assert settings.admin_on_loopback


def test_flags_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "triggerwall.yaml"
    file.write_text("alpha: 0.03\nport: 3\nhost: 10.0.0.3\ndetectors: [spc]\n")
    monkeypatch.setenv("TRIGGERWALL_CONFIG", str(file))
    monkeypatch.setenv("TRIGGERWALL_PORT", "2")
    monkeypatch.setenv("TRIGGERWALL_HOST", "10.0.0.2")
    settings = Settings(host="10.0.0.1")
    assert (settings.host, settings.port, settings.alpha) == ("10.0.0.1", 2, 0.03)
    assert settings.detectors == ("spc",)


def test_the_file_may_be_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("mode: monitor\n")
    assert Settings(config=file).mode is Mode.MONITOR
    file.write_text("")
    assert Settings(config=file).mode is Mode.ENFORCE


def test_lists_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGERWALL_DETECTORS", "nspc, psc")
    monkeypatch.setenv("TRIGGERWALL_SPC_SCALES", "2,3.5")
    monkeypatch.setenv("TRIGGERWALL_ADMIN_KEY", "secret")
    settings = Settings()
    assert (settings.detectors, settings.spc_scales) == (("nspc", "psc"), (2, 3.5))
    assert settings.admin_key == SecretStr("secret")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0},
        {"alpha": 1},
        {"detectors": ()},
        {"detectors": ("spc", "spc")},
        {"detectors": ("magic",)},
        {"spc_scales": (0,)},
        {"spc_scales": (float("nan"),)},
        {"psc_omega": 1},
        {"psc_n": 0},
        {"queue_rows": 10},
        {"image_formats": ("EXE",)},
        {"mode": "off"},
        {"port": 70_000},
        {"alhpa": 0.1},
    ],
)
def test_values_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize("content", [None, "[1, 2]", "a: [", "just words"])
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "x.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"x\.yaml"):
        Settings(config=file)


def test_a_misspelt_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("thresholdz: fixed\n")
    with pytest.raises(ValidationError, match="thresholdz"):
        Settings(config=tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    assert Settings(host=host).admin_on_loopback is loopback


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_an_empty_admin_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TRIGGERWALL_ADMIN_KEY=` must not let in everybody who sends no key."""
    monkeypatch.setenv("TRIGGERWALL_ADMIN_KEY", "")
    assert Settings().admin_key is None


def test_caller_keys_in_environment_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIGGERWALL_CALLER_KEYS", "shop:a:b, app:c")
    settings = Settings()
    assert settings.caller_keys == {"shop": SecretStr("a:b"), "app": SecretStr("c")}
    assert "a:b" not in repr(settings)
    monkeypatch.delenv("TRIGGERWALL_CALLER_KEYS")
    file = tmp_path / "x.yaml"
    file.write_text("caller_keys: {shop: a}\n")
    assert Settings(config=file).caller_keys == {"shop": SecretStr("a")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"caller_keys": "shop"},
        {"caller_keys": "shop:"},
        {"caller_keys": ":key"},
        {"caller_keys": "a:x,a:y"},
        {"caller_keys": '{"shop": "key"}'},
        {"caller_keys": "a:x,b:x"},
        {"caller_keys": "a:x", "admin_key": "x"},
        {"caller_keys": {"a": ""}},
        {"admin_port": 8000},
        {"rate_limit": 0},
        {"trusted_proxies": "proxy.example"},
        {"trusted_proxies": "10.0.0.1/8"},
    ],
)
def test_keys_and_ports_are_told_apart(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
