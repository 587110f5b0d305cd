"""PostgreSQL advisory locks: one number for each use, so that no two uses block each other."""

from enum import IntEnum


class AdvisoryLock(IntEnum):
    """Lock numbers; the first three bytes are `CLM` in ASCII.

    PostgreSQL keeps the locks of each database apart, and locks with one number apart from locks with two.
    """

    DATABASE_CREATION = 0x434C4D01
    """Creation of the ledger's, MLflow's and Prefect's database."""
    MIGRATION = 0x434C4D02
    """Upgrade of the ledger's tables."""
    PROMOTION = 0x434C4D03
    """A change of a model's production version; the second number is a hash of the model id."""
    INTAKE = 0x434C4D04
    """Decision on a request to retrain."""
    STUDY = 0x434C4D05
    """Creation of Optuna's tables; with the hash of a study's name, the choice of the study's next trial."""
    REPLY = 0x434C4D08
    """A request to the REST API with an `Idempotency-Key`; the second number is a hash of caller and key."""
    LABEL = 0x434C4D0A
    """Registration of a version; the second number is a hash of the model id and the label."""
    MARKET_COSTS = 0x434C4D0C
    """Record of the costs of a market; the second number is a hash of the symbol."""
    SHADOW_PLACES = 0x434C4D0D
    """Place of a recipe under shadow testing; the second number is a hash of the model id."""
    ALLOCATION = 0x434C4D0E
    """Start, weights or end of an allocation; the second number is a hash of the model id."""
    CANDIDATES = 0x434C4D0F
    """Record of a candidate that awaits its evaluation."""
    CANDIDATE_EVALUATION = 0x434C4D10
    """Evaluation of the candidates that wait, by one process at a time."""
    MLFLOW_TABLES = 0x434C4D0B
    """Creation and migration of MLflow's tables, in MLflow's database."""
    PREFECT_TABLES = 0x434C4D13
    """Creation and migration of Prefect's tables by containers, in the ledger's database."""
    HOME = 0x434C4D09
    """Change of the artifact locations after a move of the home, in MLflow's database."""
    FILES_OF_VERSIONS = 0x434C4D11
    """Removal of files of versions; a backup holds the lock shared."""
    AUDIT = 0x434C4D41
    """Appending to the audit, the outbox or the alerts. A trigger of ledger revision 0006 takes the lock by
    the same number, which must never change."""
