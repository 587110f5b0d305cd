"""Rate limits per minute, counted in the memory of each process."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from clm_core.domain.errors import TooManyRequests


class RateLimits:
    def __init__(self, failed_logins_per_minute: int, writes_per_minute: int) -> None:
        self._counter = MovingWindowRateLimiter(MemoryStorage())
        self._failed_logins = RateLimitItemPerMinute(failed_logins_per_minute)
        self._writes = RateLimitItemPerMinute(writes_per_minute)

    def count_failed_login(self, address: str) -> None:
        """Counts a wrong token; valid tokens from the same address stay accepted.

        Raises:
            TooManyRequests: the limit of the address is reached.
        """
        self._count(
            self._failed_logins, "login", address, "Too many wrong passwords or tokens from your address"
        )

    def count_write(self, token_id: str) -> None:
        """
        Raises:
            TooManyRequests: the limit of the token is reached.
        """
        self._count(self._writes, "write", token_id, "Too many writes with your token")

    def _count(self, allowed: RateLimitItem, kind: str, key: str, refusal: str) -> None:
        if not self._counter.hit(allowed, kind, key):
            free_at = self._counter.get_window_stats(allowed, kind, key).reset_time
            raise TooManyRequests(refusal, max(1, math.ceil(free_at - time.time())))
