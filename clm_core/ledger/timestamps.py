"""Timestamps of anchors by RFC 3161: an authority signs that the newest hash of the audit existed at a time.

A token is kept as `timestamps/<number>-<hash>.tsr` beside the anchors. The signed message is the hash as
text, so that `openssl ts -verify` can check a token without this software.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clm_core.domain.audit_settings import AuditSettings
from clm_core.domain.errors import AuditBroken, DeliveryFailed, SettingsError
from clm_core.ledger.hash_chain import Anchor

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TOKENS = "timestamps"
"""Folder of the tokens, in a folder of anchors."""
TIMEOUT_SECONDS = 10.0
_NAME = re.compile(r"(\d+)-([0-9a-f]{64})\.tsr")


@dataclass(frozen=True)
class Authority:
    """Time-stamp authority."""

    url: str
    certificates: Path
    """PEM file: self-issued certificates are trusted as roots, others are intermediates."""

    def stamp(self, anchor: Anchor, folder: Path) -> datetime:
        """Have an anchor signed and keep the verified token; returns the signed time.

        Raises:
            DeliveryFailed: the authority does not answer, refuses, or answers with an invalid token.
            SettingsError: the certificates cannot be read.
        """
        token = self._request(anchor)
        try:
            signed_at = self.verify(token, anchor.hash)
        except AuditBroken as error:
            raise DeliveryFailed(f"the authority answered with an invalid token: {error}") from error
        tokens = folder / TOKENS
        tokens.mkdir(parents=True, exist_ok=True)
        unfinished = tokens / "unfinished"
        unfinished.write_bytes(token)
        unfinished.replace(tokens / f"{anchor.seq}-{anchor.hash}.tsr")
        return signed_at

    def verify(self, token: bytes, entry_hash: str) -> datetime:
        """Signed time of a valid token.

        Raises:
            AuditBroken: the token is malformed, about another hash, or not signed by the authority.
            SettingsError: the certificates cannot be read.
        """
        from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

        roots, intermediates = self.trusted()
        try:
            response = decode_timestamp_response(token)
            verifier = VerifierBuilder(roots=roots, intermediates=intermediates).build()
            verifier.verify_message(response, entry_hash.encode())
            return response.tst_info.gen_time
        except (ValueError, VerificationError) as error:
            # the rest is OpenSSL's stack of errors
            cause = str(error).partition(": ErrorStack")[0]
            raise AuditBroken(f"the timestamp cannot be trusted: {cause}") from error

    def _request(self, anchor: Anchor) -> bytes:
        import httpx
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        message = anchor.hash.encode()
        request = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
        headers = {"content-type": "application/timestamp-query"}
        try:
            answer = httpx.post(
                self.url, content=request.as_bytes(), headers=headers, timeout=TIMEOUT_SECONDS
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"{self.url} gave no timestamp: {error}") from error
        return answer.content

    def trusted(self) -> "tuple[list[Certificate], list[Certificate]]":
        """Root and intermediate certificates.

        Raises:
            SettingsError: the certificates cannot be read.
        """
        from cryptography.x509 import load_pem_x509_certificates

        try:
            certificates = load_pem_x509_certificates(self.certificates.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{self.certificates}, set by audit.timestamp_certificates, is no PEM file with "
                f"certificates: {error}."
            ) from error
        roots = [each for each in certificates if each.issuer == each.subject]
        return roots, [each for each in certificates if each not in roots]


def authority_of(audit: AuditSettings) -> Authority | None:
    """Authority of the settings, if any."""
    if audit.timestamp_url is None or audit.timestamp_certificates is None:
        return None
    return Authority(audit.timestamp_url, audit.timestamp_certificates)


@dataclass(frozen=True)
class KeptTimestamp:
    """A kept token, not verified."""

    file: Path
    seq: int
    """Number of the stamped entry, by the name of the file."""
    hash: str
    """Hash of the stamped entry, by the name of the file."""


def tokens(folder: Path) -> Iterator[KeptTimestamp]:
    """Tokens in a folder of anchors, by number."""
    timestamps = [
        KeptTimestamp(file, int(match[1]), match[2])
        for file in (folder / TOKENS).glob("*.tsr")
        if (match := _NAME.fullmatch(file.name))
    ]
    yield from sorted(timestamps, key=lambda token: token.seq)
