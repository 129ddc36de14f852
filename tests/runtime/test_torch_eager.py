"""The PyTorch reference."""

import pytest

from lineproof.core.errors import BundleError
from lineproof.runtime.engine import EngineOptions, open_engine, predict

torch = pytest.importorskip("torch")


def test_a_bundle_without_its_reference_is_said_in_plain_words(tiny_bundle):
    with pytest.raises(BundleError, match=r"holds no reference\.safetensors.*compare with another engine"):
        open_engine(tiny_bundle, "torch")


def test_the_number_of_threads_is_put_back(with_reference):
    before = torch.get_num_threads()
    engine = open_engine(with_reference, "torch", options=EngineOptions(num_threads=before + 1))
    predict(engine, with_reference.golden().frames)
    assert torch.get_num_threads() == before
    assert engine.describe()["device"] == "CPU"
