"""How often in a minute; counted in the memory of this process, so with several of them each counts alone."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from clm_core.domain.errors import TooManyRequests
from clm_core.settings import ApiSettings


class Limits:
    def __init__(self, settings: ApiSettings) -> None:
        self._counter = MovingWindowRateLimiter(MemoryStorage())
        self._failed_logins = RateLimitItemPerMinute(settings.failed_logins_per_minute)
        self._writes = RateLimitItemPerMinute(settings.writes_per_minute)

    def count_failed_login(self, address: str) -> None:
        """Only wrong tokens are counted and kept waiting: who shares an address with a guesser gets in.

        Raises:
            TooManyRequests: there were as many as are allowed already.
        """
        self._count(self._failed_logins, "login", address, "Too many wrong tokens from your address")

    def count_write(self, token_id: str) -> None:
        """Raises:
        TooManyRequests: there were as many as are allowed already.
        """
        self._count(self._writes, "write", token_id, "Too many writes with your token")

    def _count(self, allowed: RateLimitItem, what: str, whose: str, refusal: str) -> None:
        if not self._counter.hit(allowed, what, whose):
            free_at = self._counter.get_window_stats(allowed, what, whose).reset_time
            raise TooManyRequests(refusal, max(1, math.ceil(free_at - time.time())))
