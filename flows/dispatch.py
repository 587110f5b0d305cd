"""What waits is answered now rather than by the next upkeep: an event on Prefect's bus starts this."""

from prefect import flow

from tasks.dispatch import answer_what_waits


@flow(name="drain")
def drain() -> None:
    """Take events and messages that wait to the door, and start the jobs that wait."""
    answer_what_waits()
