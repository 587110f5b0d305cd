"""Pages of a retrain in the Prefect UI: the verdict, and the comparison with the champion."""

from base64 import b64encode
from pathlib import Path

from clm_core.domain.errors import NotFound
from clm_core.domain.evaluations import SYMBOL_COLUMNS, Verdict
from clm_core.domain.versions import ModelVersion
from clm_core.ledger.store import Ledger
from clm_core.platform import stack_state
from clm_core.retraining.results import TearSheetFiles


def summary_page(home: Path, version: ModelVersion, verdict: Verdict, report: TearSheetFiles) -> str:
    """Markdown for a run's page: verdict, checks, equity curve and links.

    Args:
        home: home folder of the installation; its running stack decides where the links lead.
    """
    met = {True: "yes", False: "**no**"}
    rows = [
        f"| {check.label} | {check.value:.4g} | {check.comparison} {check.limit:,.6g} | {met[check.passed]} |"
        for check in verdict.checks
    ]
    return "\n".join(
        [
            f"# {version.model_id} {version.version}: {verdict.decision.value.upper()}",
            "",
            f"Score {verdict.score:.1f} of 100, out of sample, after costs, by the policy {verdict.policy}.",
            "",
            *(f"- {reason}" for reason in (*verdict.reasons, *verdict.warnings, *spread(verdict))),
            "",
            "| check | measured | required | met |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            *symbol_rows(verdict),
            *_baseline_rows(verdict),
            f"![equity curve](data:image/png;base64,{b64encode(report.equity_png).decode()})",
            "",
            *_links(home, version, report),
        ]
    )


def symbol_rows(verdict: Verdict) -> list[str]:
    """Markdown table of the symbols of a pool; empty for one market."""
    if not verdict.by_symbol:
        return []
    return [
        f"| symbol | {' | '.join(SYMBOL_COLUMNS)} | costs |",
        f"| --- {'| --- ' * (len(SYMBOL_COLUMNS) + 1)}|",
        *(f"| {each.symbol} | {' | '.join(each.cells)} | {each.costs} |" for each in verdict.by_symbol),
        "",
        "The pool is judged as the equal-risk portfolio of its symbols; the contributions add up to the sum "
        "of the portfolio's returns.",
        "",
    ]


def _baseline_rows(verdict: Verdict) -> list[str]:
    """Table of the baselines in Markdown; empty for a verdict without baselines."""
    if not verdict.baselines:
        return []
    return [
        "| baseline | net return | Sharpe ratio | volatility | maximum drawdown | excess return a year | "
        "alpha a year | beta |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {each.label} | {each.total_return:+.1%} | {each.sharpe_ratio:.2f} | {each.volatility:.1%} | "
            f"{each.max_drawdown:.1%} | {each.excess_return.text('.1%')} | "
            f"{each.alpha.text('.1%')} | {each.beta.text('.2f')} |"
            for each in verdict.baselines
        ),
        "",
        "In brackets the interval of 95 %.",
        "",
    ]


def beside_champion(ledger: Ledger, version: ModelVersion, verdict: Verdict) -> list[dict[str, str]]:
    """A row per check: the value of the version, beside the value in the champion's own verdict."""
    champion = ledger.promotions.champion(version.model_id)
    champion_column = f"{champion} (champion)" if champion else "no champion"
    champion_values = _measured(ledger, version.model_id, champion)
    return [
        {
            "check": check.label,
            f"{version.version} (challenger)": f"{check.value:.4g}",
            champion_column: champion_values.get(check.name, "-"),
            "required": f"{check.comparison} {check.limit:,.6g}",
        }
        for check in verdict.checks
    ]


def spread(verdict: Verdict) -> tuple[str, ...]:
    """A sentence on the range of Sharpe ratios over the seeds; empty when a single seed was tried."""
    if not verdict.seed_sharpes:
        return ()
    lowest = verdict.seed_sharpes[0]
    highest = verdict.seed_sharpes[-1]
    judged = next(check.value for check in verdict.checks if check.name == "sharpe_ratio")
    count = len(verdict.seed_sharpes)
    return (
        f"Sharpe ratio over {count} seeds: {lowest:.2f} to {highest:.2f}; of the judged seed: {judged:.2f}",
    )


def _measured(ledger: Ledger, model_id: str, version: str | None) -> dict[str, str]:
    """Formatted value of each check of a version, by the check's name."""
    if version is None:
        return {}
    try:
        _, verdict = ledger.evaluation(model_id, version)
    except NotFound:
        # the version was put into production by hand and never judged
        return {}
    return {check.name: f"{check.value:.4g}" for check in verdict.checks}


def _links(home: Path, version: ModelVersion, report: TearSheetFiles) -> list[str]:
    """Links to MLflow's pages while `clm up` serves them, otherwise to files on this machine."""
    state = stack_state.running(home)
    if state is None:
        return [
            f"MLflow: `{version.model_path}`  ",
            f"[Tear sheet]({report.html.as_uri()}) at `{report.html}`",
        ]
    model = f"{state.mlflow_url}/#/models/{version.model_id}"
    sheet = f"get-artifact?path=report/{report.html.name}&run_uuid={version.mlflow_run_id}"
    return [
        f"[This version in MLflow]({model}/versions/{version.mlflow_version}), `{version.model_path}`  ",
        f"[All versions, with the production alias]({model})  ",
        f"[Tear sheet]({state.mlflow_url}/{sheet}) to download, also at `{report.html}`",
    ]
