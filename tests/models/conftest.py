"""The models that several test files of this folder share."""

import pytest

from fedrecon.models import functional
from tests.models.small_models import MODELS


@pytest.fixture(scope="module", params=MODELS)
def models(request):
    """A split model and its functional form."""
    split = MODELS[request.param]()
    return split, functional.FunctionalModel(split)
