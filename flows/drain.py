"""Former name of `flows.dispatch`, for runs scheduled by the release before; removed in the next."""

from flows.dispatch import dispatch as drain  # noqa: F401 - an entry point
