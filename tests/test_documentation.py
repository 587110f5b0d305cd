"""Links between the pages of the documentation, and the form of decisions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, numbered where a heading is repeated."""
    slugs = list[str]()
    for heading in HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = sum(re.sub(r"-\d+$", "", each) == slug for each in slugs)
        slugs.append(f"{slug}-{count}" if count else slug)
    return set(slugs)


@pytest.mark.parametrize("page", sorted(set(PAGES)), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = list[str]()
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        is_known = target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors(target))
        broken += [] if is_known else [link]
    assert broken == []


@pytest.mark.parametrize(
    "decision", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda path: path.stem
)
def test_every_decision_has_a_title_a_status_a_date_and_alternatives(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    assert re.match(rf"# {int(decision.stem[:4])}\. .+\n\n- Status: .+\n- Date: \d{{4}}-\d\d-\d\d\n", text)
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"Context", "Decision", "Alternatives"} <= set(sections)
    title = text.partition("\n")[0].removeprefix("# ")
    assert f"- [{title}]({decision.name})" in (decision.parent / "README.md").read_text(encoding="utf-8")
