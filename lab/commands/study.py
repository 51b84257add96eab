"""`triggerwall lab study`: train and judge all bundles of a study."""

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import DEFAULT_DEVICE, Device, console, fail, open_device, told_plainly, warn
from lab.matrix import read_matrix
from lab.sources import open_training
from lab.study import Images, plan, run_job

__all__ = ["study_command"]


def study_command(
    matrix: Annotated[Path, typer.Argument(help="YAML: data, out, defaults, runs, evaluate.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it and list what is to do.")] = False,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Train and judge all bundles of a study; skips what is done, goes on with what was interrupted."""
    with told_plainly():
        study, where = read_matrix(matrix), open_device(device)
        images = Images(*open_training(study.data, study.channels, study.exclude, warn))
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
