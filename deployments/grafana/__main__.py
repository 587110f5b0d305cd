"""Write the dashboards as JSON files, or ask a Prometheus server every query of theirs.

python -m deployments.grafana
python -m deployments.grafana --ask http://127.0.0.1:9090
"""

import sys
from argparse import ArgumentParser

import httpx

from deployments.grafana import DASHBOARDS, FOLDER, text_of


def main() -> int:
    parser = ArgumentParser(prog="python -m deployments.grafana", description=__doc__)
    parser.add_argument("--ask", metavar="URL", help="address of a Prometheus server")
    url = parser.parse_args().ask
    if url is None:
        for dashboard in DASHBOARDS:
            (FOLDER / f"{dashboard.uid}.json").write_text(text_of(dashboard), encoding="utf-8")
        return 0
    counts = numbers_of_series(url)
    for query, count in counts.items():
        print(f"{count:4} {query}")
    return 0 if all(counts.values()) else 1


def numbers_of_series(url: str) -> dict[str, int]:
    """Number of series with a value of each query, which is 0 for a query that Prometheus refuses."""
    with httpx.Client(base_url=url) as client:
        return {
            f"{dashboard.title}: {panel.title}: {query.expression}": _count(client, query.expression)
            for dashboard in DASHBOARDS
            for panel in dashboard.panels
            for query in panel.queries
        }


def empty_queries(url: str) -> list[str]:
    """Queries without a series."""
    return [query for query, count in numbers_of_series(url).items() if not count]


def _count(client: httpx.Client, expression: str) -> int:
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    series = answer.get("data", {}).get("result", [])
    # a panel shows nothing for the quotient of two zeros
    return sum(each["value"][1] != "NaN" for each in series)


if __name__ == "__main__":
    sys.exit(main())
