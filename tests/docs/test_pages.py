"""What the pages say is there: files they link to, commands and options they show, settings they name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
COMMAND = re.compile(r"(?<![/\w-])(?:\.venv/bin/)?triggerwall((?: +[^\s`|#;&)]+)+)")
SETTING = re.compile(r"\bTRIGGERWALL_([A-Z0-9_]+)\b")
NOT_SETTINGS = {"URL", "CLIENT_KEY"}  # the client's own
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `triggerwall` in code, fenced or inline, with lines that go on put together."""
    code = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    for part in code:
        for line in part.replace("\\\n", " ").splitlines():
            for found in COMMAND.finditer(line):
                yield found[1].split()


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` name, and the words after its name."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@EACH_PAGE
def test_commands_and_options_exist(page: Path) -> None:
    unknown = []
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = resolve(words)
        if hasattr(command, "commands") and rest and re.fullmatch(r"[a-z][a-z-]+", rest[0]):
            unknown.append(" ".join(words))
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {
            "--help"
        }
        unknown += [f"{command.name} {word}" for word in rest
                    if word.startswith("--") and word.split("=")[0] not in options]  # fmt: skip
    assert unknown == []


@EACH_PAGE
def test_settings_exist(page: Path) -> None:
    named = {
        name.lower() for name in SETTING.findall(page.read_text(encoding="utf-8")) if name not in NOT_SETTINGS
    }
    assert named - set(Settings.model_fields) == set()


def test_what_is_looked_for_is_found() -> None:
    """The checks above see commands and options; they are no empty loops."""
    found = list(
        commands(
            "```sh\n.venv/bin/triggerwall lab train \\\n  --data X\n```\n and `triggerwall serve --prot 1`"
        )
    )
    assert found == [["lab", "train", "--data", "X"], ["serve", "--prot", "1"]]
    assert resolve(found[0])[0].name == "train"
    assert resolve(["lab", "trian"])[1] == ["trian"]
