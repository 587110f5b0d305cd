"""Infrastructure: PostgreSQL server, Prefect client, stack state, notifications, locks."""
