"""The study of history: every claim is recomputed from its table."""

import numpy as np
import pytest
import torch
from control_claims import at, clauses, findings, rows, told, verdict

from noise2action.data.normalize import Normalizer
from noise2action.envs.tasks import find
from noise2action.recipes.prepare import demonstrate
from noise2action.studies import history
from noise2action.studies.policies import JERK, SUCCESS, blanked


@pytest.mark.slow
def test_claims_follow_from_the_rows():
    table, text = rows("history"), findings("history").paragraph
    shown = list(history.SHOWN)
    for measure, digits in ((SUCCESS, 1), (history.ERROR, 4), (JERK, 1)):
        found = clauses(text, measure)
        for row in table:
            if row["steps"] != 2:
                gap = at(row, f"{measure}, less that of 2 steps")
                clause = found[shown.index(str(row["observed"]))][verdict(gap)]
                assert f"{row['steps']} step{'s' if row['steps'] != 1 else ''} {told(gap, digits)}" in clause


def test_a_hidden_velocity_reads_zero_in_episodes_and_demonstrations():
    setting = history.SHOWN["position alone"]
    seen = setting.seen({"position": np.ones(2), "velocity": np.ones(2)})
    assert np.array_equal(seen["position"], np.ones(2))
    assert not seen["velocity"].any()
    demonstrated = blanked(demonstrate(find("two_routes"), 2, seed=0).episodes, setting.given)
    fitted = Normalizer.fit(demonstrated.arrays, {"velocity": "limits"})
    # What says nothing reaches the network as nothing.
    assert not fitted.encode("velocity", torch.from_numpy(seen["velocity"])).any()
