import json
from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient

from clm_core.domain.vocabulary import Role
from clm_core.ledger.audit_log import verify_export
from clm_core.services import Services

Client = Callable[[Role | None], TestClient]


def test_the_pages_of_the_audit_make_an_export_that_verifies(
    client: Client, services: Services, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        client(Role.ADMIN).post("/clm/tokens", json={"name": name, "role": "viewer"})
    # pages enough to follow each other, of a test process that may have written thousands of entries
    limit = min(1000, max(2, services.ledger.newest_audit_number() // 4))
    pages = 0
    after = 0
    file = tmp_path / "audit.jsonl"
    with file.open("w") as copy:
        while after is not None:
            page = client(Role.ADMIN).get("/clm/audit", params={"after": after, "limit": limit}).json()
            copy.writelines(json.dumps(entry) + "\n" for entry in page["entries"])
            pages = pages + 1
            after = page["next"]
    report = verify_export(file, [])
    assert (report.problems, report.entries >= 3, pages >= 2) == ((), True, True)
