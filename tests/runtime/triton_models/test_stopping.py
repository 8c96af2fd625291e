"""The models of a server that stops refuse in the way of the models whose place they take."""

from __future__ import annotations

import json

import pytest

from intaglio.triton_models.stopping import REFUSAL, StoppingModel

from .conftest import Log, Request


@pytest.mark.parametrize("streams", [False, True])
def test_every_request_is_refused(log: Log, streams: bool) -> None:
    model = StoppingModel()
    model.initialize({"model_config": json.dumps({"model_transaction_policy": {"decoupled": streams}})})
    requests = [Request({}, []) for _ in range(2)]
    now = model.execute(requests)
    answers = [request.sender.sent[0] for request in requests] if now is None else now
    errors = [answer.error for answer in answers]
    assert [(error.message(), error.code) for error in errors] == [(REFUSAL, "unavailable")] * 2
    assert [request.sender.done.is_set() for request in requests] == [streams] * 2


def test_it_answers_as_the_ensemble_does_without_a_policy(log: Log) -> None:
    model = StoppingModel()
    model.initialize({"model_config": "{}"})
    answers = model.execute([Request({}, [])])
    assert answers is not None
    assert answers[0].error.message() == REFUSAL
