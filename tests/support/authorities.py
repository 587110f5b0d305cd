"""A time-stamp authority (RFC 3161) for tests: `openssl ts` behind HTTP, with certificates of its own."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CONFIG = """
[tsa]
dir = {folder}
serial = $dir/serial
signer_cert = $dir/signer.pem
signer_key = $dir/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass
class TestAuthority:
    """Authority whose answers can be switched off."""

    __test__ = False

    folder: Path
    url: str = ""
    answers: bool = True
    requests: list[bytes] = field(default_factory=list)

    @property
    def certificates(self) -> Path:
        return self.folder / "root.pem"

    def reply(self, query: bytes) -> bytes:
        self.requests.append(query)
        (self.folder / "query").write_bytes(query)
        openssl(
            "ts", "-reply", "-config", "tsa.cnf", "-section", "tsa", "-queryfile", "query", "-out", "reply",
            folder=self.folder,
        )  # fmt: skip
        return (self.folder / "reply").read_bytes()


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certify(folder: Path) -> Path:
    """Folder with a root and a signer's certificate."""
    folder.mkdir(parents=True)
    (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "serial").write_text("01")
    for name in ("root", "signer"):
        openssl("genpkey", "-algorithm", "RSA", "-out", f"{name}.key", folder=folder)
        openssl(
            "req",
            "-new",
            "-key",
            f"{name}.key",
            "-subj",
            f"/CN=test {name}",
            "-out",
            f"{name}.csr",
            folder=folder,
        )
    signed = ["x509", "-req", "-days", "30", "-extfile", "tsa.cnf"]
    openssl(
        *signed,
        "-in",
        "root.csr",
        "-signkey",
        "root.key",
        "-extensions",
        "root",
        "-out",
        "root.pem",
        folder=folder,
    )
    by_root = ["-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "2"]
    openssl(
        *signed, "-in", "signer.csr", *by_root, "-extensions", "signer", "-out", "signer.pem", folder=folder
    )
    return folder


@contextlib.contextmanager
def authority(folder: Path) -> Iterator[TestAuthority]:
    """A running authority with certificates of its own."""
    served = TestAuthority(certify(folder))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200 if served.answers else 503)
            self.send_header("content-type", "application/timestamp-reply")
            self.end_headers()
            if served.answers:
                self.wfile.write(served.reply(query))

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test has no use for the lines."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
