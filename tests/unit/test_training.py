"""What a training makes of counts, and of a grid."""

from __future__ import annotations

import pytest

from toolkit.errors import RequestError
from toolkit.training import TrainRequest, _scores, parse_grid
from toolkit.trainings import LabelScore


def test_precision_and_recall_are_those_of_the_confusion():
    scores = _scores(["a", "b", "c"], [[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert scores == [
        LabelScore("a", 4, 1.0, 0.75),
        LabelScore("b", 2, pytest.approx(2 / 3), 1.0),
        LabelScore("c", 0, None, None),
    ]


def test_a_grid_is_read_and_checked():
    assert parse_grid([]) == {"regParam": (0.001, 0.01, 0.1)}
    assert parse_grid(["regParam=0.1,1", "maxIter=20"]) == {"regParam": (0.1, 1), "maxIter": (20,)}
    request = TrainRequest(images="", grid=parse_grid(["regParam=0,1", "elasticNetParam=0,1"]))
    assert len(request.candidates) == 4
    for text in ("depth=3", "regParam", "regParam=-1", "elasticNetParam=2", "maxIter=1.5", "tol=a"):
        with pytest.raises(RequestError):
            parse_grid([text])
