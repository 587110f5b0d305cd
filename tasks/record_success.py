from clm_core.services import services
from tasks.step import step


@step("record the success")
def record_success(name: str) -> None:
    """Tell the dead man's switch that a scheduled pass has succeeded."""
    services().ledger.passes.succeeded(name)
