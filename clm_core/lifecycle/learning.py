"""Value of continuous learning: production against the first champion, frozen and followed for ever.

The track of production has the positions of the version in production at each bar, and is flat while nothing
served. Both tracks are paper records on the same bars, traded from flat at the moment the first champion was
replaced, at the costs measured by fills where there are enough.
"""

from collections.abc import Sequence

from clm_core.domain.paper import LearningValue
from clm_core.domain.promotions import Promotion
from clm_core.services import Services


def first_champion(history: Sequence[Promotion]) -> str | None:
    """Version label of the first version ever in production; None if none was.

    Args:
        history: committed changes of the model, oldest first.
    """
    return next((change.to_version for change in history if change.to_version is not None), None)


def learning_value(services: Services, model_id: str) -> LearningValue | None:
    """Production minus the frozen first champion of a model; None for a model never in production."""
    history = services.ledger.promotions.committed(model_id)
    label = first_champion(history)
    if label is None:
        return None
    value = LearningValue(
        model_id=model_id, frozen=label, production=history[-1].to_version, at=services.clock()
    )
    begun = [change.to_version for change in history].index(label)
    since_left = [row for row, change in enumerate(history) if row > begun and change.to_version != label]
    if not since_left:
        reason = f"the first champion {label} has served all along, so there is no difference to measure"
        return value.model_copy(update={"reason": reason})
    changes = history[since_left[0] :]
    value = value.model_copy(update={"since": changes[0].at})
    # imported here: a model whose first champion serves still does without the libraries of bars
    from clm_core.lifecycle.measured_learning import measured

    return measured(services, value, changes)
