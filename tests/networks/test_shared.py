"""Networks held by reference, adapters on them, and copies that share storage."""

import copy
import pickle

import torch
from torch import nn

from braidkit.networks import Adapter, Shared, share, shared_parts


def tensors(module):
    return [*module.parameters(), *module.buffers()]


def same_storage(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def test_a_shared_network_is_no_part_of_what_holds_it():
    adapter = Adapter(Shared(nn.Linear(4, 3)), ["bias"])
    assert list(adapter.state_dict()) == ["own.bias"]
    copied = copy.deepcopy(adapter).double()
    assert copied.shared is adapter.shared and adapter.shared.module.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in adapter.shared.module.parameters())
    assert shared_parts(nn.ModuleList([adapter, copied])) == [adapter.shared]


def test_an_adapter_stands_in_for_the_tensors_of_its_network():
    """Only for its own passes, and with gradients of its own."""
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    adapter = Adapter(Shared(network), ["1.bias"])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adapter(x), network(x))
    with torch.no_grad():
        adapter.own["1/bias"] += 1
    assert torch.allclose(adapter(x), network(x) + 1)
    adapter(x).sum().backward()
    assert torch.equal(adapter.own["1/bias"].grad, torch.full((2,), 5.0))
    assert network[1].bias.grad is None
    assert torch.equal(pickle.loads(pickle.dumps(adapter))(x), adapter(x))


def test_on_another_device_a_copy_is_made_once():
    shared = Shared(nn.Linear(4, 3))
    assert shared.on(torch.device("cpu")) is shared.module
    elsewhere = shared.on(torch.device("meta"))
    assert elsewhere.weight.device.type == "meta" and shared.on(torch.device("meta")) is elsewhere
    assert shared.module.weight.device.type == "cpu"


def test_a_sharing_copy_copies_one_part_alone():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    copied = share(network, own=network[2])
    for ours, theirs in zip(tensors(network), tensors(copied), strict=True):
        assert ours is not theirs and torch.equal(ours, theirs)
    assert all(same_storage(a, b) for a, b in zip(tensors(network[:2]), tensors(copied[:2]), strict=True))
    assert not any(same_storage(a, b) for a, b in zip(tensors(network[2]), tensors(copied[2]), strict=True))


def test_a_sharing_copy_is_converted_alone():
    network = nn.Linear(4, 3)
    share(network).double()
    assert network.weight.dtype == torch.float32
