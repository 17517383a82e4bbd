"""A package that is not installed: which extra brings it is said, and nothing else is taken for that."""

from importlib import import_module

import pytest

from service.errors import Failure, MitosisError, ParameterInvalid
from service.extras import needs
from service.refusals import FormatUnavailable


@pytest.mark.parametrize("kind", [FormatUnavailable, Failure])
def test_a_missing_package_names_the_extra_that_brings_it(kind: type[MitosisError]) -> None:
    told = r"no_such_package is not installed; pip install 'mitosis-service\[interop\]'"
    with pytest.raises(kind, match=told), needs("interop", kind):
        import_module("no_such_package")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ParameterInvalid), needs("interop"):
        raise ParameterInvalid("x")
    with needs("interop"):
        import_module("json")
