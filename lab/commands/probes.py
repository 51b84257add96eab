"""`triggerwall lab probes`: what every probe of the profile is worth, and what to choose."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from detectors.probes import DEFAULT_PRESET
from lab.bank import Bank, measure_bank, read_bank, write_bank
from lab.commands.common import (
    DEFAULT_DEVICE,
    Calibration,
    Channels,
    Data,
    Device,
    Images,
    Out,
    Seed,
    console,
    errors,
    fail,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.judge import open_study
from lab.probing import MOST_PROBES, Judged, candidates, detail, held_out, judge, summary
from lab.sources import open_split

__all__ = ["measure_probes_command", "probes_command"]

Banks = Annotated[Path, typer.Option(help="Folder of the answers, one file a model.")]


def measure_probes_command(
    bundle: Annotated[list[Path], typer.Argument(help="Bundles that `lab train` made.")],
    data: Data,
    banks: Banks,
    calibration: Calibration = 1000,
    images: Images = 1500,
    channels: Channels = 3,
    prefix: Annotated[str, typer.Option(help="Before the models' names, such as the data set's.")] = "",
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Ask every probe about each bundle's images, and keep the answers; what is kept already is skipped."""
    with told_plainly():
        test, where = open_split(data, "test", channels, warn), open_device(device)
        banks.mkdir(parents=True, exist_ok=True)
        for each in bundle:
            name = prefix + each.resolve().name
            file = banks / f"{name}.npz"
            if file.exists():
                continue
            study = open_study(each, test, calibration, images, seed, where, ["profile"], benign_models=True)
            write_bank(file, measure_bank(study, name))
            console.print(f"{file}", markup=False)


def probes_command(
    banks: Banks,
    calibration: Annotated[
        int | None, typer.Option(min=100, help="Benign images to calibrate on; all by default.")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Probes to choose, for each attack held out.")
    ] = MOST_PROBES,
    choose: Annotated[bool, typer.Option(help="Choose probes with each attack held out (minutes).")] = True,
    out: Out = None,
) -> None:
    """Judge the presets, other one-class models and other probes on the answers in `banks`."""
    with told_plainly():
        known: list[Bank] = [read_bank(file) for file in sorted(banks.glob("*.npz"))]
        if not known:
            fail(f"{banks} has no answers: `triggerwall lab measure-probes` measures them")
        rows = [
            judge(bank, way, build, calibration)
            for way, build in track(list(candidates().items()), "judging", console=errors, transient=True)
            for bank in known
        ]
        console.print(summary(f"{len(known)} models", rows))
        console.print(detail(DEFAULT_PRESET, [row for row in rows if row.way == DEFAULT_PRESET]))
        if choose and len({bank.attack for bank in known if bank.attack}) > 1:
            chosen = held_out(known, most, lambda attack: errors.print(f"choosing without {attack}"))
            console.print(
                summary("Probes chosen on all attacks but the one they are judged on", _by_number(chosen))
            )
            rows += chosen
        write_json(out, rows)


def _by_number(rows: Sequence[Judged]) -> list[Judged]:
    """Every attack has probes of its own: what they have in common is how many they are."""
    return [replace(row, way=f"{row.way.count('+') + 1} probes") for row in rows]
