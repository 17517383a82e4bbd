"""The report of an evaluation: JSON holds null for what is undefined."""

import json

from service.training.evaluate import evaluate
from service.training.evaluation_report import as_json
from tests.training.examined import drawn


def test_json_has_null_for_what_is_undefined() -> None:
    content = as_json(evaluate([drawn({}, [])], 0.5), {"threshold": 0.5})
    assert content["localisation"]["at_threshold"]["f1"] is None
    assert content["localisation"]["at_threshold"]["f1_interval"] is None
    assert content["image_level"]["auc"] is None
    assert content["between_cases"] == {"cases": 0}
    json.dumps(content, allow_nan=False)
