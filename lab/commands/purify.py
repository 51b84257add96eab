"""`triggerwall lab purify`: find the poisoned images in a training set, and train without them."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from lab.cleaned import write_archive, write_indices
from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Calibration,
    Channels,
    Data,
    Device,
    Seed,
    console,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.data import LabError
from lab.evaluate import evaluate
from lab.judge import DETECTORS
from lab.purify import METHODS, check_methods, figures, figures_table, remake, retrain, score
from lab.sources import open_training
from models.loading import load_network

__all__ = ["purify_command"]


def purify_command(
    bundle: Bundle,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the figures and, by method, the cleaned sets.")],
    method: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; {', '.join(METHODS)} by default.")
    ] = None,
    budget: Annotated[float, typer.Option(help="False-positive budget, in (0, 1), that decides.")] = 0.05,
    fixed: Annotated[bool, typer.Option("--fixed", help="Each method's own T decides instead.")] = False,
    calibration: Calibration = 500,
    exclude: Annotated[list[str] | None, typer.Option(help="As in the bundle's training.")] = None,
    archive: Annotated[bool, typer.Option("--archive", help="Write the cleaned sets as zips too.")] = False,
    again: Annotated[bool, typer.Option("--retrain", help="Train on each cleaned set.")] = False,
    channels: Channels = 3,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Let a model score the images it was trained on, take out the suspicious ones, train on the others."""
    with told_plainly():
        methods = list(dict.fromkeys(method or METHODS))
        _check(methods, budget)
        where = open_device(device)
        clean, test, provenance = open_training(data, channels, exclude or [], warn)
        suspects = remake(bundle, clean)
        if len(test) < calibration:
            raise LabError(f"{len(test)} test images are too few to calibrate on {calibration}")
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
        benign = test.take(order[:calibration])
        classifier = load_network(bundle, where)
        check_methods(methods, classifier, suspects.data)
        out.mkdir(parents=True, exist_ok=True)
        before = evaluate(classifier.network, test, suspects.attack, suspects.target)
        rows = []
        for name in methods:
            scored = score(name, classifier, suspects.data, benign, budget)
            removed = scored.removed(fixed)
            folder = out / name
            folder.mkdir(exist_ok=True)
            write_indices(removed, folder / "indices.json")
            if archive:
                kept = suspects.data.take(torch.from_numpy(~removed))
                write_archive(kept, test, folder / "cleaned.zip")
            outcome = None
            if again:
                how = {
                    "cleaned_by": name,
                    "rule": "fixed" if fixed else budget,
                    "removed": int(removed.sum()),
                }
                outcome = retrain(bundle, suspects, removed, test, folder / "model", where, provenance | how)
            rows.append(figures(suspects, scored, fixed, outcome))
            write_json(out / "figures.json", rows)  # after each: the next one may take an hour
        console.print(figures_table(before, suspects, budget, rows))


def _check(methods: list[str], budget: float) -> None:
    """Refuse before any hour is spent."""
    known = list(dict.fromkeys((*METHODS, *DETECTORS)))
    for name in methods:
        if name not in known:
            raise LabError(f"unknown method {name!r}; known: {', '.join(known)}")
    if not 0 < budget < 1:
        raise LabError(f"the budget lies between 0 and 1, not {budget:g}")
