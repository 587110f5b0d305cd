"""`python -m clm_core.api [PORT [ADDRESS]]`: the REST API, in one process; see `[api] address`.

With a pipe as standard input the server ends when the pipe closes, however its parent process died.
"""

import logging
import os
import stat
import sys
import threading

import uvicorn

from clm_core.api.app import create_app
from clm_core.api.connections import bounded
from clm_core.api.envelope import log
from clm_core.domain.api_settings import ApiSettings
from clm_core.domain.errors import CLMError
from clm_core.operations.delivery_at_commit import delivery_at_commit
from clm_core.platform.garbage_collection import collect_garbage_rarely, return_memory_after_start
from clm_core.platform.json_logs import configure_logs
from clm_core.platform.private_files import keep_files_private
from clm_core.services import open_services
from clm_core.settings import load_settings

DEFAULT_PORT = 8000
LOOPBACK = "127.0.0.1"


def main(port: int, address: str | None = None) -> None:
    settings = load_settings()
    configure_logs(settings.logs.format == "json")
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    with open_services(settings) as services:
        # takes seconds: connect beside the start-up, not during the first request
        threading.Thread(target=services.registry.connect, daemon=True).start()
        listen_on = address or settings.api.address or LOOPBACK
        server = uvicorn.Server(configuration(create_app(services), settings.api, port, listen_on))
        if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            threading.Thread(target=_stop_when_orphaned, args=[server], daemon=True).start()
        with delivery_at_commit(services.database, services.clock, load_settings):
            server.run()


def configuration(app: object, settings: ApiSettings, port: int, address: str = LOOPBACK) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=address,
        port=port,
        http=bounded(settings),
        timeout_keep_alive=settings.idle_seconds,
        log_level="warning",
        # the log of the envelope has no paths and no secrets
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        # event streams do not end by themselves
        timeout_graceful_shutdown=3,
    )


def _stop_when_orphaned(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


if __name__ == "__main__":
    collect_garbage_rarely()
    keep_files_private()
    return_memory_after_start()
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT, *sys.argv[2:])
    except CLMError as error:
        sys.exit(f"Error: {error}")
