"""What the commands share: where they print, the options that lead to a gateway, how errors are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from app.client import ClientError
from app.settings import SettingsError
from app.storage.errors import StoreError
from detectors.base import DetectorError
from models.errors import ModelError

__all__ = [
    "DEFAULT_URL",
    "NEWS",
    "UNREACHABLE",
    "WRONG",
    "AsJson",
    "Key",
    "Url",
    "console",
    "errors",
    "told_plainly",
]

console = Console()
errors = Console(stderr=True)

NEWS, WRONG, UNREACHABLE = 1, 2, 3  # exit codes
Url = Annotated[str, typer.Option(envvar="TRIGGERWALL_URL", help="Where the gateway answers.")]
Key = Annotated[str | None, typer.Option(envvar="TRIGGERWALL_ADMIN_KEY", help="The gateway's admin key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")]
DEFAULT_URL = "http://127.0.0.1:8000"


@contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that the person at the keyboard can mend end the command in one sentence and an exit code."""
    try:
        yield
    except ClientError as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(UNREACHABLE) from None
    except ValidationError as error:
        for fault in error.errors():
            sentence = f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}"
            errors.print(sentence, style="red", markup=False)
        raise typer.Exit(WRONG) from None
    except (ModelError, DetectorError, StoreError, SettingsError, ValueError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(WRONG) from None
