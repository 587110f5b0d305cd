"""Pages of a retrain in the Prefect UI: the verdict, and the comparison with the champion."""

from base64 import b64encode

from clm_core.backtest.by_regime import REGIME_COLUMNS, REGIME_NOTE
from clm_core.domain import verdict_text
from clm_core.domain.errors import NotFound
from clm_core.domain.evaluations import Verdict
from clm_core.domain.versions import ModelVersion, regime_sentence
from clm_core.ledger.store import Ledger
from clm_core.platform.stack_state import PageAddresses
from clm_core.retraining.results import TearSheetFiles


def summary_page(
    addresses: PageAddresses,
    version: ModelVersion,
    verdict: Verdict,
    report: TearSheetFiles,
    recipe_from: str | None = None,
) -> str:
    """Markdown for a run's page: verdict, checks, equity curve and links.

    Args:
        addresses: targets of the links.
        recipe_from: origin of the parameters in words; None for a request's own.
    """
    return "\n".join(
        [
            f"# {version.model_id} {version.version}",
            "",
            f"**{verdict.headline}**",
            "",
            *_links(addresses, version),
            f"Score {verdict.score:.1f} of 100, out of sample, after costs, by the policy {verdict.policy}.",
            "",
            *([f"Recipe from {recipe_from}.\n"] if recipe_from else []),
            *([f"Trained towards {regime_sentence(version)}.\n"] if version.regime else []),
            *verdict_text.bullets(verdict),
            *(f"{sentence}.\n" for sentence in spread(verdict)),
            *verdict_text.narrow_check_table(verdict),
            *verdict_text.fold_table(verdict),
            *verdict_text.symbol_table(verdict),
            *verdict_text.baseline_table(verdict),
            *verdict_text.rule_table(verdict),
            *_regime_table(report),
            f"![equity curve](data:image/png;base64,{b64encode(report.equity_png).decode()})",
            "",
        ]
    )


def _regime_table(report: TearSheetFiles) -> list[str]:
    """Table of the results by regime, as on the tear sheet; empty without known regimes."""
    if not report.by_regime:
        return []
    return [*verdict_text.table(REGIME_COLUMNS, report.by_regime), REGIME_NOTE, ""]


def beside_champion(ledger: Ledger, version: ModelVersion, verdict: Verdict) -> str | None:
    """Markdown with a row per check: the value of the version beside that of the champion's own verdict; None
    without a champion."""
    champion = ledger.promotions.champion(version.model_id)
    if champion is None:
        return None
    champion_values = _measured(ledger, version.model_id, champion)
    columns = ("check", version.version, f"{champion} (production)", "required")
    rows = [
        (check.label, _value(check.measured), champion_values.get(check.name, "-"), check.required)
        for check in verdict.checks
    ]
    return "\n".join(verdict_text.table(columns, rows))


def _value(measured: str) -> str:
    """Value without the remark behind the comma, for which the page has no room."""
    return measured.partition(", ")[0]


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
    return {check.name: _value(check.measured) for check in verdict.checks}


def _links(addresses: PageAddresses, version: ModelVersion) -> list[str]:
    """Links to the pages of the home; the addresses stay the same while nothing serves them."""
    links = []
    if sheet := addresses.tear_sheet(version.model_id, version.version):
        links.append(f"[Tear sheet]({sheet})")
        links.append(f"[Model]({addresses.home_page}/models/{version.model_id})")
    if addresses.mlflow:
        model = f"{addresses.mlflow}/#/models/{version.model_id}"
        links.append(f"[Version in MLflow]({model}/versions/{version.mlflow_version})")
        links.append(f"[All versions in MLflow]({model})")
    if not links:
        links = ["`clm up` serves the tear sheet on the page of the model"]
    return [f"{' · '.join(links)} · `{version.model_path}`", ""]
