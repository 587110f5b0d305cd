"""Former name of `flows.maintenance`, for runs scheduled by the release before; removed in the next."""

from flows.maintenance import maintenance as upkeep  # noqa: F401 - an entry point
