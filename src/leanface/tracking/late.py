"""Deliver what MLflow could not take earlier."""

from leanface.errors import TrackingError
from leanface.tracking import outbox
from leanface.tracking.outbox import first_line
from leanface.tracking.store import Store

PATIENCE_SECONDS = 120.0
"""How long to wait for another process that delivers."""


def deliver() -> int:
    """Send what waits in the outbox to MLflow; return how many runs that were.

    Raises:
        TrackingError: MLflow is out of reach, or does not take some of them; what was not delivered still waits.
    """
    if not outbox.holds_any():
        return 0
    try:
        store = Store()
        done = outbox.deliver(store.send_waiting, store.reachable, PATIENCE_SECONDS)
    except TimeoutError:
        raise TrackingError(
            f"Another process has been delivering for {PATIENCE_SECONDS:.0f} s; the runs still wait in "
            f"{outbox.outbox()}. Run `leanface track` again."
        ) from None
    except Exception as error:
        raise TrackingError(
            f"{first_line(error)} The runs still wait in {outbox.outbox()}; then run `leanface track` again."
        ) from error
    if done.held:
        reasons = "\n  ".join(done.held)
        raise TrackingError(
            f"{done.delivered} runs were delivered, and {len(done.held)} still wait in {outbox.outbox()}:\n  {reasons}"
        )
    return done.delivered
