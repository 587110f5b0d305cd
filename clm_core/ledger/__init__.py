"""PostgreSQL stores: jobs, versions, evaluations, trials, promotions, audit, inbox, outbox, migrations."""
