"""Evidence of an evaluation as the ledger keeps it, for a judgement at a later time."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredEvidence:
    """Out-of-sample positions behind a verdict, with the digests of the data and the code they come from."""

    content: bytes
    """Positions of every seed, packed; see `retraining.stored_evidence`."""
    data_hash: str
    """Content hash of the training bars, hexadecimal."""
    code_digest: str
    """SHA-256 over the code of the training, hexadecimal."""

    @property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()
