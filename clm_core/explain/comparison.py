"""Two versions beside each other: verdict, metrics, equity, training, importance of the features,
explanations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_core.domain import measures
from clm_core.domain.evaluations import EvaluationResult, Verdict
from clm_core.domain.explanations import Section, SectionTable, VersionExplanation
from clm_core.domain.versions import ModelVersion
from clm_core.explain.equity_overlay import TradedCurve, equity_section, without_curves
from clm_core.explain.features import NAME as FEATURES
from clm_core.explain.features import stored_shares
from clm_core.explain.shares import Shares, distance, largest_moves

METRICS: dict[str, Callable[[float], str]] = {
    "sharpe_ratio": measures.ratio,
    "sortino_ratio": measures.ratio,
    "calmar_ratio": measures.ratio,
    "total_pnl": measures.percent,
    "max_drawdown": measures.percent,
    "win_rate": measures.percent,
    "profit_factor": measures.ratio,
    "trades": measures.count,
    "promotion_score": measures.ratio,
}
"""Metrics of an evaluation beside each other, with their formats."""
MISSING = "–"
FEATURES_SHOWN = 15
ITEMS_SHOWN = 3
"""Longest list that a table of parameters writes out."""


@dataclass(frozen=True)
class ComparedVersion:
    """What is stored about one of the two versions."""

    version: ModelVersion
    params: Mapping[str, Any]
    """Every training parameter, readable, sections flattened."""
    evaluation: EvaluationResult | None
    """None for a version not judged yet, as the verdict."""
    verdict: Verdict | None
    explanation: VersionExplanation | None
    """None for a version not explained yet."""
    curve: TradedCurve | None = None
    """Out-of-sample returns; None where the positions or their bars are stored no more."""

    @property
    def name(self) -> str:
        return f"{self.version.model_id}@{self.version.version}"

    @property
    def headline(self) -> str:
        return "not judged" if self.verdict is None else self.verdict.headline

    @property
    def period(self) -> str:
        """First and last day of the out-of-sample bars."""
        judged = self.evaluation
        return (
            MISSING if judged is None else f"{judged.period_start:%Y-%m-%d} to {judged.period_end:%Y-%m-%d}"
        )

    def metric(self, name: str) -> float | None:
        return None if self.evaluation is None else float(getattr(self.evaluation, name))

    def estimate(self, check: str) -> str:
        """Measured value of a check, with its interval."""
        return (self.verdict and self.verdict.estimate_of(check)) or MISSING


Pair = tuple[ComparedVersion, ComparedVersion]


def comparison_sections(one: ComparedVersion, other: ComparedVersion) -> tuple[Section, ...]:
    """Sections in the order of a page; without the numbers that one of the versions lacks."""
    pair = (one, other)
    return (
        _verdict_section(pair),
        _equity(pair),
        _training_section(pair),
        _parameter_section(pair),
        *_feature_sections(pair),
        *_figure_sections(pair),
    )


def _verdict_section(pair: Pair) -> Section:
    metrics = {name: [each.metric(name) for each in pair] for name in METRICS}
    rows = [
        ("verdict", *(each.headline for each in pair)),
        ("out of sample", *(each.period for each in pair)),
        *((measures.label_of(name), *_cells(values, METRICS[name])) for name, values in metrics.items()),
        *(
            (measures.label_of(name), *(each.estimate(name) for each in pair))
            for name in _check_names(pair)
            if name not in METRICS
        ),
    ]
    finite = {name: [_finite(value) for value in values] for name, values in metrics.items()}
    return Section(
        name="verdict",
        title="Verdict and metrics",
        sentences=_warnings(pair[0].evaluation, pair[1].evaluation),
        tables=(_table(pair, rows),),
        values={"verdict": [each.headline for each in pair], "metrics": finite},
    )


def _equity(pair: Pair) -> Section:
    one, other = (each.curve for each in pair)
    if one is None or other is None:
        lost = " and ".join(each.name for each in pair if each.curve is None)
        return without_curves(f"The out-of-sample positions of {lost}, or their bars, are stored no more.")
    return equity_section(one, other)


def _check_names(pair: Pair) -> list[str]:
    """Names of the checks of either verdict, in their order."""
    checks = (check for each in pair if each.verdict is not None for check in each.verdict.checks)
    return list(dict.fromkeys(check.name for check in checks))


def _warnings(one: EvaluationResult | None, other: EvaluationResult | None) -> tuple[str, ...]:
    if one is None or other is None:
        return ()
    other_bars = (one.period_start, one.period_end) != (other.period_start, other.period_end)
    warnings = (
        (other_bars, "The evaluations are about different bars: a better metric may be the better period."),
        (one.terms_digest != other.terms_digest, "The evaluations were made under different terms."),
    )
    return tuple(sentence for holds, sentence in warnings if holds)


def _training_section(pair: Pair) -> Section:
    facts = [_facts(each) for each in pair]
    names = dict.fromkeys([*facts[0], *facts[1]])
    both = {name: [each.get(name) for each in facts] for name in names}
    differing = {name: values for name, values in both.items() if values[0] != values[1]}
    rows = [(name, *_texts(*values)) for name, values in differing.items()]
    return Section(
        name="training",
        title="Training",
        sentences=(f"Of {len(both)} facts and parameters of the training, {len(rows)} differ.",),
        tables=(_table(pair, rows),) if rows else (),
        values={"differing": differing},
    )


def _parameter_section(pair: Pair) -> Section:
    """Every training parameter of both, those that differ first and marked."""
    names = dict.fromkeys([*pair[0].params, *pair[1].params])
    both = {name: [each.params.get(name) for each in pair] for name in names}
    differ = {name: ours != theirs for name, (ours, theirs) in both.items()}
    rows = [
        (name, *_texts(*both[name]), "differs" if differ[name] else "")
        for name in sorted(names, key=lambda name: not differ[name])
    ]
    columns = ("", *(each.name for each in pair), "")
    return Section(
        name="parameters",
        title="Parameters",
        tables=(SectionTable(columns=columns, rows=tuple(rows)),),
        values=both,
    )


def _texts(ours: Any, theirs: Any) -> tuple[str, str]:
    """Two values of a parameter for people; None for a version without the parameter."""
    return _text(ours, theirs), _text(theirs, ours)


def _text(value: Any, other: Any) -> str:
    """A value; of a long list the number of items, and those that the other list lacks."""
    if value is None:
        return MISSING
    if not isinstance(value, list | tuple) or len(value) <= ITEMS_SHOWN:
        return str(value)
    known = other if isinstance(other, list | tuple) else value
    only_here = ", ".join(str(item) for item in value if item not in known)
    return f"{len(value)} values{f', only here: {only_here}' if only_here else ''}"


def _facts(each: ComparedVersion) -> dict[str, Any]:
    version = each.version
    return {
        "kind": str(version.kind),
        "market": f"{version.symbol} {version.timeframe}",
        "seed": version.seed,
        "training bars": version.data_hash[:12],
        "code": version.code_version,
        **each.params,
    }


def _feature_sections(pair: Pair) -> tuple[Section, ...]:
    """Shares of mean |SHAP|; none unless both versions have them."""
    stored = [stored_shares(each.explanation) for each in pair if each.explanation is not None]
    known = [each for each in stored if each is not None]
    if len(known) < 2:
        return ()
    (market, one), (other_market, other) = known
    apart = distance(one, other)
    moves = ", ".join(f"{name} {measures.signed_percent(move)}" for name, move in largest_moves(one, other))
    sentences = [
        f"{measures.percent(apart)} of the shares of mean |SHAP| are with other features"
        f"{f': {moves}' if moves else ''}."
    ]
    if market != other_market:
        sentences.append(f"The first was explained on bars of {market}, the second on {other_market}.")
    section = Section(
        name=FEATURES,
        title="Features",
        sentences=tuple(sentences),
        tables=(_table(pair, _share_rows(one, other)),),
        values={"distance": apart, "shares": [one, other]},
    )
    return (section,)


def _share_rows(one: Shares, other: Shares) -> list[tuple[str, ...]]:
    names = sorted({*one, *other}, key=lambda name: (-max(one.get(name, 0.0), other.get(name, 0.0)), name))
    return [
        (name, *(measures.percent(shares.get(name, 0.0)) for shares in (one, other)))
        for name in names[:FEATURES_SHOWN]
    ]


def _figure_sections(pair: Pair) -> tuple[Section, ...]:
    """Validation metrics not among the metrics of the verdict, and the single numbers of sections of both
    explanations, such as the calibration."""
    one, other = pair
    sections: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = [
        ("validation", "Validation metrics", _validation(one), _validation(other))
    ]
    if one.explanation is not None and other.explanation is not None:
        sections += [
            (each.name, each.title, each.values, other.explanation.values_of(each.name))
            for each in one.explanation.sections
            if each.name != FEATURES
        ]
    return tuple(
        Section(
            name=name,
            title=title,
            tables=(_table(pair, _number_rows(numbers)),),
            values=dict(numbers),
        )
        for name, title, before, after in sections
        if (numbers := _numbers_of_both(before, after))
    )


def _validation(each: ComparedVersion) -> dict[str, float]:
    metrics = each.version.validation_metrics
    return {name: metrics[name] for name in sorted(metrics) if name not in METRICS}


def _number_rows(numbers: Mapping[str, Sequence[float]]) -> list[tuple[str, ...]]:
    return [(measures.label_of(name), *map(measures.significant, both)) for name, both in numbers.items()]


def _numbers_of_both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[float]]:
    names = [name for name in one if _is_number(one[name]) and _is_number(other.get(name))]
    return {name: [one[name], other[name]] for name in names}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cells(values: Sequence[float | None], write: Callable[[float], str]) -> list[str]:
    return [MISSING if value is None else write(value) for value in values]


def _finite(value: float | None) -> float | None:
    return None if value is None else measures.finite_or_none(value)


def _table(pair: Pair, rows: Sequence[tuple[str, ...]]) -> SectionTable:
    """Table with a column for each version."""
    return SectionTable(columns=("", *(each.name for each in pair)), rows=tuple(rows))
