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
    return _ask(url)


def _ask(url: str) -> int:
    """Print the number of series of each query; 1 if a query has none, or is refused."""
    empty = 0
    with httpx.Client(base_url=url) as client:
        for dashboard in DASHBOARDS:
            for panel in dashboard.panels:
                for query in panel.queries:
                    answer = client.get("/api/v1/query", params={"query": query.expression}).json()
                    series = answer.get("data", {}).get("result", [])
                    print(f"{len(series):4} {dashboard.title}: {panel.title}: {query.expression}")
                    empty += not series
    return min(empty, 1)


if __name__ == "__main__":
    sys.exit(main())
