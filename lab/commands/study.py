"""`triggerwall lab study`: train and judge all bundles of a study."""

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import (
    DATA_HELP,
    DEFAULT_DEVICE,
    Device,
    Precision,
    assignments,
    console,
    fail,
    open_device,
    told_plainly,
    warn,
)
from lab.matrix import Matrix, changed, read_matrix, trained_already
from lab.sources import open_split, open_training
from lab.study import Images, plan, run_job

__all__ = ["study_command"]


def _images(study: Matrix) -> Images:
    """Without anything to train, the training images are not read."""
    if study.runs:
        return Images(*open_training(study.data, study.channels, study.exclude, warn))
    test = open_split(study.data, "test", study.channels, warn)
    return Images(test, test, {})


def study_command(
    matrix: Annotated[Path, typer.Argument(help="YAML: data, out, defaults, runs, evaluate.")],
    data: Annotated[str | None, typer.Option(help=f"Instead of the file's. {DATA_HELP}")] = None,
    out: Annotated[Path | None, typer.Option(help="Instead of the file's.")] = None,
    bundle: Annotated[
        list[str] | None, typer.Option(help="Judge this bundle too, trained elsewhere; may be repeated.")
    ] = None,
    no_train: Annotated[bool, typer.Option("--no-train", help="Judge what is trained already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it and list what is to do.")] = False,
    precision: Precision | None = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE in place of the file's default; may be repeated.")
    ] = None,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Train and judge all bundles of a study; skips what is done, goes on with what was interrupted."""
    with told_plainly():
        study, where = read_matrix(matrix), open_device(device)
        defaults = assignments("--setting", setting) | ({"precision": precision} if precision else {})
        named = {
            "data": data,
            "out": out,
            "bundles": (*study.bundles, *bundle) if bundle else None,
            "defaults": study.defaults | defaults if defaults else None,
        }
        study = changed(study, **{key: value for key, value in named.items() if value is not None})
        study = trained_already(study) if no_train else study
        images = _images(study)
        jobs = plan(study, images)
    for number, job in enumerate(jobs, 1):
        left = f", {job.steps} steps" if job.steps else ""
        console.print(f"{number}/{len(jobs)} {job.name}: {job.state}{left}", markup=False)
    if dry_run:
        return
    failed = [
        job.name
        for job in jobs
        if not run_job(job, images, study.evaluate, where, lambda line: console.print(line, markup=False))
    ]
    if failed:
        fail(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}")
