import json
from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient

from clm_core.domain.vocabulary import Role
from clm_core.ledger.audit_log import verify_export

Client = Callable[[Role | None], TestClient]


def test_the_pages_of_the_audit_make_an_export_that_verifies(client: Client, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        client(Role.ADMIN).post("/clm/tokens", json={"name": name, "role": "viewer"})
    after, file = 0, tmp_path / "audit.jsonl"
    with file.open("w") as copy:
        while after is not None:
            page = client(Role.ADMIN).get("/clm/audit", params={"after": after, "limit": 2}).json()
            copy.writelines(json.dumps(entry) + "\n" for entry in page["entries"])
            after = page["next"]
    report = verify_export(file, [])
    assert (report.problems, report.entries >= 3) == ((), True)
