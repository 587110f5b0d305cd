"""What a pass over many models shows of itself: a row a model, and what there is to say in sentences."""

from collections.abc import Iterable, Sequence

Row = dict[str, str]


def page(rows: Sequence[Row], sentences: Iterable[str]) -> str:
    """Markdown for a run's page: Prefect's own tables cut off what is long."""
    lines = [" | ".join(row.values()) for row in rows]
    head = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])] if rows else []
    return "\n".join([*(f"| {line} |" for line in (*head, *lines)), "", *(f"- {each}" for each in sentences)])


def formatted(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
