"""Pages of a retrain in the Prefect UI: the verdict, and the comparison with the champion."""

from base64 import b64encode
from pathlib import Path

from clm_core.backtest.by_regime import REGIME_COLUMNS, REGIME_NOTE
from clm_core.domain import verdict_text
from clm_core.domain.errors import NotFound
from clm_core.domain.evaluations import CHECK_COLUMNS, Verdict
from clm_core.domain.versions import ModelVersion, regime_sentence
from clm_core.ledger.store import Ledger
from clm_core.platform import stack_state
from clm_core.retraining.results import TearSheetFiles


def summary_page(
    home: Path,
    version: ModelVersion,
    verdict: Verdict,
    report: TearSheetFiles,
    recipe_from: str | None = None,
) -> str:
    """Markdown for a run's page: verdict, checks, equity curve and links.

    Args:
        home: home folder of the installation; its running stack decides where the links lead.
        recipe_from: origin of the parameters in words; None for a request's own.
    """
    return "\n".join(
        [
            f"# {version.model_id} {version.version}",
            "",
            f"**{verdict.headline}**",
            "",
            f"Score {verdict.score:.1f} of 100, out of sample, after costs, by the policy {verdict.policy}.",
            "",
            *([f"Recipe from {recipe_from}.\n"] if recipe_from else []),
            *([f"Trained towards {regime_sentence(version)}.\n"] if version.regime else []),
            *verdict_text.bullets(verdict),
            *(f"{sentence}.\n" for sentence in spread(verdict)),
            *verdict_text.table(CHECK_COLUMNS, verdict_text.check_rows(verdict)),
            *verdict_text.fold_table(verdict),
            *verdict_text.symbol_table(verdict),
            *verdict_text.baseline_table(verdict),
            *verdict_text.rule_table(verdict),
            *_regime_table(report),
            f"![equity curve](data:image/png;base64,{b64encode(report.equity_png).decode()})",
            "",
            *_links(home, version, report),
        ]
    )


def _regime_table(report: TearSheetFiles) -> list[str]:
    """Table of the results by regime, as on the tear sheet; empty without known regimes."""
    if not report.by_regime:
        return []
    return [*verdict_text.table(REGIME_COLUMNS, report.by_regime), REGIME_NOTE, ""]


def beside_champion(ledger: Ledger, version: ModelVersion, verdict: Verdict) -> list[dict[str, str]]:
    """A row per check: the value of the version, beside the value in the champion's own verdict."""
    champion = ledger.promotions.champion(version.model_id)
    champion_column = f"{champion} (champion)" if champion else "no champion"
    champion_values = _measured(ledger, version.model_id, champion)
    return [
        {
            "check": check.label,
            f"{version.version} (challenger)": check.measured,
            champion_column: champion_values.get(check.name, "-"),
            "required": check.required,
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
    return {check.name: check.measured for check in verdict.checks}


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
