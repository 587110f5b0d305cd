"""`clm --help`: the commands in groups, each with a line that fits into 80 columns."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

GROUPS: Mapping[str, Mapping[str, str]] = {
    "First steps": {
        "init": "Write the settings file of the home, clm.toml.",
        "config": "Print the settings in force, and where they come from.",
        "demo": "Train and judge models on bundled bars.",
        "data": "Market data: list, draw, import, fetch, correct.",
        "features": "Features of models: list, and examine your own.",
    },
    "Train and judge": {
        "retrain": "Train a model on the newest bars, and judge it.",
        "models": "List the versions, and the kinds of model.",
        "jobs": "List the training jobs.",
        "show": "Show a version: data, lineage, metrics, verdict.",
        "report": "Path of a version's tear sheet.",
        "explain": "Explain a version: what moves it, how well it knows.",
        "compare": "Show two versions beside each other.",
        "replay": "Replay the past under the rules of continuous learning.",
        "replays": "List the replays with a page.",
        "gate": "The gate: levels, verdicts explained, simulations.",
        "reproduce": "Train a version again, and compare to the bit.",
        "stats": "Count models, versions, jobs and promotions.",
    },
    "Search": {
        "tune": "Search for better training parameters.",
        "evolve": "Breed training parameters or rule strategies.",
        "candidates": "Parameters proposed by people and by evolution.",
        "regimes": "The regime of a market, and its best recipes.",
    },
    "Requests": {
        "trigger": "Request a retrain by a worker.",
        "triggers": "List the requests to retrain, with the answers.",
        "dispatch": "Answer waiting messages, and start waiting jobs.",
    },
    "Production": {
        "promote": "Put a version into production.",
        "approvals": "List the promotions that wait for an approval.",
        "rollback": "Go back to the production version before.",
        "halt": "Take the production version out of production.",
        "confirm": "Extend a forced promotion.",
        "hard-stop": "Switch the hard stop of a version off for some days.",
        "retire": "Retire a version that is not in production.",
        "ab": "Share the capital with candidates (A/B).",
    },
    "Watch": {
        "watch": "Check the production versions on the newest bars.",
        "shadow": "Record what candidates would trade, and decide.",
        "paper": "Paper record of a version.",
        "fills": "Fills of a model: measured beside modelled costs.",
        "drift": "Drift of the features and predictions, by day.",
        "attribution": "Where the P&L of recorded positions comes from.",
        "alerts": "List the recorded alerts.",
    },
    "Servers": {
        "up": "Start database, Prefect, MLflow, API and workers.",
        "down": "Stop the servers of `clm up`.",
        "status": "Health, jobs, production versions, age of bars, next runs.",
        "deploy": "Bring Prefect's deployments in line with the settings.",
        "maintenance": "Run one maintenance pass.",
        "deliveries": "Receivers of events and alerts, and dead letters.",
        "tokens": "Tokens for the REST API.",
        "exec": "Run a program with the environment of the servers.",
    },
    "Care of the home": {
        "audit": "The audit of every change: show, verify, export.",
        "backup": "Write the home into one file, while everything runs.",
        "restore": "Restore a backup into an empty home.",
        "db": "Check and upgrade the ledger's tables.",
        "storage": "Bars and artifacts in a bucket.",
        "prune": "Remove the files of old failed versions.",
        "reconcile": "Complete changes that a crash interrupted.",
        "restore-version": "Register a version deleted in MLflow again.",
    },
}
"""Headings with the commands below each, and the line of each command."""
OTHERS = "Others"
_UNCUT = 10_000


class WholeSentences(TyperGroup):
    """Group of commands whose first sentences are wrapped where others are cut off."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        self.write(formatter, "Commands", {name: self._sentence(name) for name in self.visible()})

    def visible(self) -> list[str]:
        return [name for name, command in self.commands.items() if not command.hidden]

    @staticmethod
    def write(formatter: "HelpFormatter", heading: str, lines: Mapping[str, str]) -> None:
        if lines:
            with formatter.section(heading):
                formatter.write_dl(list(lines.items()))

    def _sentence(self, name: str) -> str:
        return self.commands[name].get_short_help_str(_UNCUT)


class CommandGroups(WholeSentences):
    """The commands of `clm` under headings."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        visible = self.visible()
        width = max(map(len, visible))
        listed = {name for lines in GROUPS.values() for name in lines}
        others = {name: self._sentence(name) for name in visible if name not in listed}
        for heading, lines in (*GROUPS.items(), (OTHERS, others)):
            # equally wide names: one column of texts for all headings
            shown = {name.ljust(width): text for name, text in lines.items() if name in visible}
            self.write(formatter, heading, shown)


def keep_sentences_whole(app: typer.Typer) -> None:
    """Wraps the sentences of the groups below an application, of groups within groups, too."""
    for group in app.registered_groups:
        group.cls = WholeSentences
        if group.typer_instance is not None:
            keep_sentences_whole(group.typer_instance)
