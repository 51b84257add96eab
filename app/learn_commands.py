"""`triggerwall learn …`: from monitoring to enforcing without any benign images."""

from typing import Annotated

import typer

from app.calibration_text import print_report
from app.client import GatewayClient
from app.terminal import DEFAULT_URL, NEWS, Key, Url, console, told_plainly

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True, help="Start without benign images: learn from the traffic.")


@commands.command("status")
def learn_status(url: Url = DEFAULT_URL, api_key: Key = None) -> None:
    """Say how much of the traffic was learnt, and whether it has changed since the calibration."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        info = gateway.info()
    learning, drift = info["learning"], info["drift"]
    if learning is None:
        console.print("The gateway does not learn from traffic: set TRIGGERWALL_LEARN_FROM_TRAFFIC=true.")
    else:
        console.print(
            f"{learning['images']} of {learning['capacity']} images of traffic are kept as figures "
            f"({learning['needed']} needed at the least)" + (", learning." if learning["learning"] else ".")
        )
    console.print(f"mode {info['mode']}, traffic {drift['state']} after {drift['images']} images watched")
    if drift["state"] in ("drifting", "under_attack"):
        raise typer.Exit(NEWS)


@commands.command("activate")
def learn_activate(
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    alpha: Annotated[float | None, typer.Option(help="Share of benign images that may be rejected.")] = None,
    contamination: Annotated[
        float | None, typer.Option(help="Share of the traffic that may be poisoned, up to 0.2.")
    ] = None,
    enforce: Annotated[bool, typer.Option(help="Then switch from monitoring to enforcing.")] = False,
) -> None:
    """Calibrate on the traffic learnt so far and judge by that."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        print_report(console, gateway.learn(alpha, contamination))
        if enforce:
            gateway.switch("enforce")
            console.print("The gateway enforces now, until it is restarted: then the setting `mode` holds.")
