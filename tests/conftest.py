"""What all tests share: settings of torch and hypothesis, the folder of measured data, the devices."""

import os

# Read by scipy when it is first imported: without it scikit-learn leaves out its check of array API input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Read by transformers when it is first imported: no test asks the network for a model.
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import hypothesis
import pytest
import torch

# Read by triton when it is first imported, which torch's optimisers do: without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Networks of tests are small: one thread is as fast as two.
torch.set_num_threads(1)

hypothesis.settings.register_profile("braidkit", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("braidkit")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of measured data: $BRAIDKIT_DATA, or shared/data beside the checkout."""
    named = os.environ.get("BRAIDKIT_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if folder.is_dir():
        return folder
    message = f"no measured data in {folder}; set BRAIDKIT_DATA to the folder that holds them."
    if named or os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of published models: $BRAIDKIT_MODELS, or shared/models beside the checkout."""
    named = os.environ.get("BRAIDKIT_MODELS")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "models"
    if folder.is_dir():
        return folder
    message = f"no published models in {folder}; set BRAIDKIT_MODELS to the folder that holds them."
    if named:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that the machine has."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def triton_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where public functions run Triton: a CUDA device, or without one the CPU, in Triton's interpreter."""
    triton = pytest.importorskip("triton")
    if torch.cuda.is_available():
        return torch.device("cuda")
    assert triton.knobs.runtime.interpret
    monkeypatch.setattr("braidkit.kernels._backend.ON_CPU", True)
    return torch.device("cpu")
