"""`triggerwall lab …`: the proving ground's commands, one file each in `lab.commands`."""

import typer

from lab.commands.ablate import ablate_command
from lab.commands.backends import backends_command
from lab.commands.budget import budget_command
from lab.commands.contamination import contamination_command
from lab.commands.datafree import datafree_command
from lab.commands.drift import drift_command
from lab.commands.evaluate import evaluate_command
from lab.commands.evidence import evidence_command
from lab.commands.frontier import frontier_command
from lab.commands.gallery import gallery_command
from lab.commands.power import power_command
from lab.commands.probes import measure_probes_command, probes_command
from lab.commands.purify import purify_command
from lab.commands.report import report_command
from lab.commands.study import study_command
from lab.commands.suggest import suggest_command
from lab.commands.train import train_command
from lab.memory import keep_freed_memory

HELP = "Train backdoored classifiers and judge detectors on them."

app = typer.Typer(no_args_is_help=True)
app.callback(help=HELP)(keep_freed_memory)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("ablate")(ablate_command)
app.command("study")(study_command)
app.command("report")(report_command)
app.command("gallery")(gallery_command)
app.command("frontier")(frontier_command)
app.command("measure-probes")(measure_probes_command)
app.command("probes")(probes_command)
app.command("power")(power_command)
app.command("evidence")(evidence_command)
app.command("drift")(drift_command)
app.command("datafree")(datafree_command)
app.command("budget")(budget_command)
app.command("contamination")(contamination_command)
app.command("purify")(purify_command)
app.command("backends")(backends_command)
app.command("suggest")(suggest_command)
