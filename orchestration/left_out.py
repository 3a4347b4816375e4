"""One rule for data that training goes on without: what was never trained on holds up nothing that was trained.

Retraining, registration and promotion ask here, so that none of them refuses what another one did.
"""

from collections.abc import Mapping, Sequence

from assets.drift import TRAINING_DATA
from jobs.runner.layout import StageAddress
from jobs.runner.staleness import StageState


def left_out(states: Sequence[StageState]) -> dict[StageAddress, str]:
    """Listed training data in the version that no model was trained on, and why: it was never prepared, or its newest
    version was refused."""
    known = {state.address: state for state in states}
    return {
        state.address: _why(state, known)
        for state in states
        if state.address.stage in TRAINING_DATA and (state.recorded is None or state.refused)
    }


def _why(state: StageState, known: Mapping[StageAddress, StageState]) -> str:
    refused = [state.refused, *(known[one].refused for one in state.waits_for if one in known)]
    return "refused: " + "; ".join(filter(None, refused)) if any(refused) else "never prepared"


def standing(states: Sequence[StageState]) -> set[StageAddress]:
    """Whose record stays as it is unless data that is left out comes in. states: of every address, upstream first."""
    without = left_out(states).keys()
    found: set[StageAddress] = set()
    for state in states:
        if state.address not in without and state.stands and found | without >= {*state.waits_for}:
            found.add(state.address)
    return found
