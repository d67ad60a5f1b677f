import copy
import itertools

import pytest
import torch
from torch import nn

from braidkit.exceptions import IncompatibleModelError
from braidkit.rewards.features import (
    SequenceFeatures,
    VectorFeatures,
    auto_batch_size,
    auto_learning_rate,
    auto_max_iter,
    default_features,
    make_networks,
    train_networks,
)
from braidkit.rewards.kmers import KmerFeatures, few_row_features
from braidkit.rewards.parts import LINEAR, parts_for
from braidkit.spaces import ImageSpace, SequenceSpace, VectorSpace


@pytest.mark.parametrize("length", [1, 2, 7, 50, 64, 65, 130, 200])
def test_sequence_features_take_any_length(length):
    features = SequenceFeatures(length, 4, n_channels=8, n_features=16)
    assert features(torch.rand(3, length, 4)).shape == (3, 16)
    assert features.dense.in_features <= 64 * 8


def test_sequence_features_see_where_a_letter_is():
    torch.manual_seed(0)
    features = SequenceFeatures(20, 4, n_channels=8, n_features=16).eval()
    x = torch.zeros(20, 20, 4)
    x[:, :, 0] = 1
    for i in range(20):  # sequence i is all A with one C at i
        x[i, i] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    phi = features(x)
    distances = torch.cdist(phi, phi) + torch.eye(20) * 1e9
    assert distances.min() > 1e-4


@pytest.mark.parametrize(("length", "longest"), [(7, 3), (70, 5)])
def test_kmer_features_count_kmers_and_letters_by_position(length, longest):
    space = SequenceSpace("DNA", length)
    sequences = ["".join(itertools.islice(itertools.cycle("ACGTACG"), length)), "A" * length]
    phi = KmerFeatures(length, 4)(space.encode(sequences))
    start = 4 * length
    positions = (space.encode(sequences).flatten(1) - 0.25) / (0.25 * 0.75 * start) ** 0.5
    torch.testing.assert_close(phi[:, :start], positions)
    for k in range(1, longest + 1):
        n, share = length + 1 - k, 4.0**-k
        kmers = ["".join(kmer) for kmer in itertools.product("ACGT", repeat=k)]
        counts = [[sum(row[i : i + k] == kmer for i in range(n)) for kmer in kmers] for row in sequences]
        expected = (torch.tensor(counts) - n * share) / (n * share * (1 - share) * 4**k) ** 0.5
        torch.testing.assert_close(phi[:, start : start + 4**k], expected)
        start += 4**k
    assert phi.shape == (2, start)


def test_long_sequences_are_counted_in_k_mers_at_any_number_of_rows():
    long, short = SequenceSpace("DNA", 65), SequenceSpace("DNA", 64)
    assert isinstance(few_row_features(None, long, 19_999), KmerFeatures)
    assert few_row_features(None, long, 20_000) is None and few_row_features(None, short, 750) is None


@pytest.mark.parametrize("length", [1, 2, 5, 70])
def test_kmer_features_take_short_sequences_and_relaxed_points(length):
    x = torch.rand(3, length, 4).softmax(dim=-1).requires_grad_(True)
    features = KmerFeatures(length, 4)
    features(x).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    if length > 1:  # on relaxed points a k-mer counts as the product of its letters
        pairs = (x[:, :-1, :, None] * x[:, 1:, None, :]).sum(dim=1).flatten(1)
        share, n = 1 / 16, length - 1
        expected = (pairs - n * share) / (n * share * (1 - share) * 16) ** 0.5
        torch.testing.assert_close(features(x)[:, 4 * length + 4 :][:, :16], expected)
    longest = 5 if length == 70 else min(3, length)
    assert features(x).shape[1] == 4 * length + sum(4**k for k in range(1, longest + 1))


@pytest.mark.parametrize("space", [SequenceSpace("protein", 9), VectorSpace(1), VectorSpace(10), ImageSpace(8, 8, 1)])
def test_default_features_grow_with_the_rows(space):
    x = torch.rand(2, *space.shape)
    small, large = default_features(space, 20), default_features(space, 50_000)
    assert small(x).shape[1] < large(x).shape[1]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())


def test_updates_grow_slower_than_the_rows():
    assert auto_max_iter(10) < 400
    assert auto_max_iter(1000) / 1000 > auto_max_iter(84_000) / 84_000
    assert auto_max_iter(10**6) == auto_max_iter(10**7)


def test_with_few_rows_batches_are_small_and_steps_large():
    for few, many in [(500, 2000), (2000, 30_000)]:
        assert auto_batch_size(few) < auto_batch_size(many) <= 128
        assert auto_learning_rate(few) > auto_learning_rate(many) >= 2e-3


def test_a_row_of_vectors_has_the_same_features_in_any_batch():
    torch.manual_seed(0)
    features, x = VectorFeatures(10, 32), torch.randn(40, 10)
    alone = torch.cat([features(row[None]) for row in x])
    torch.testing.assert_close(features(x), alone, rtol=1e-12, atol=1e-14)


def test_networks_start_from_the_seed_alone_and_leave_the_global_one():
    x = torch.rand(2, 5)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    networks = make_networks(None, VectorSpace(5), 100, x, seed=7, n_networks=2)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    again = make_networks(None, VectorSpace(5), 100, x, seed=7, n_networks=2)
    assert all(torch.equal(a, b) for a, b in zip(networks.parameters(), again.parameters(), strict=True))
    assert not torch.equal(networks[0](x), networks[1](x))


class Wrong(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (len, r"must be a torch.nn.Module from points \(n, 5\) to \(n, d\)"),
        (nn.Linear(4, 2), r"cannot be applied to points of shape \(2, 5\)"),
        (Wrong(lambda x: x.sum(dim=1)), r"it gave shape \(2,\)"),
        (Wrong(lambda x: x.long()), r"it gave shape \(2, 5\) and type torch.int64"),
        (Wrong(lambda x: (x,)), "it gave tuple"),
        (Wrong(lambda x: x / 0), "not finite"),
    ],
)
def test_features_that_cannot_be_used_are_refused(features, message):
    with pytest.raises(IncompatibleModelError, match=message):
        make_networks(features, VectorSpace(5), 100, torch.rand(2, 5), seed=0)


def train(networks, x, y, rows, validation, **settings):
    settings = {"max_iter": 150, "batch_size": 16, "learning_rate": 1e-2} | settings
    generator = torch.Generator().manual_seed(0)
    return train_networks(networks, x, y, rows, validation, generator=generator, **settings)


def test_each_network_learns_from_its_own_rows():
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    y = torch.cat([x[:40, 0], -x[40:, 0]])
    networks = make_networks(None, VectorSpace(2), 80, x[:2], seed=0, n_networks=2)
    train(networks, x, y, [torch.arange(40), torch.arange(40, 80)], torch.arange(0))
    with torch.no_grad():
        first, second = networks[0](x).float(), networks[1](x).float()
    assert torch.corrcoef(torch.stack([first, x[:, 0]]))[0, 1] > 0.9
    assert torch.corrcoef(torch.stack([second, x[:, 0]]))[0, 1] < -0.9


def test_the_weights_with_the_best_held_out_loss_are_kept():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.randn(60, generator=generator)  # nothing to learn
    networks = make_networks(None, VectorSpace(5), 60, x[:2], seed=0)
    validation = torch.arange(40, 60)
    n_iter, curve = train(networks, x, y, [torch.arange(40)], validation, max_iter=400)
    with torch.no_grad():
        kept = (networks[0](x[validation]) - y[validation]).square().mean().item()
    assert kept == pytest.approx(min(curve), rel=1e-6)  # float32
    assert curve[-1] > min(curve)
    assert n_iter < 400  # stopped when it had long not fallen
    assert not networks.training


def test_frozen_parameters_of_features_stay():
    features = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))
    features[0].requires_grad_(False)
    before = copy.deepcopy(features.state_dict())
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    networks = make_networks(features, VectorSpace(3), 50, x[:2], seed=0)
    train(networks, x, x[:, 0], [torch.arange(50)], torch.arange(0))
    trained = networks[0].features.state_dict()
    assert torch.equal(trained["0.weight"], before["0.weight"])
    assert not torch.equal(trained["2.weight"], before["2.weight"])
    assert all(torch.equal(features.state_dict()[name], before[name]) for name in before)


def test_pooled_features_also_see_what_there_is_wherever_it_lies():
    """An element, moved within the sequence: the pooled part of the dense layer's input stays, the rest does not."""
    torch.manual_seed(0)
    features = SequenceFeatures(64, 4, n_channels=8, n_features=16, pooled=True).eval()
    x = torch.zeros(2, 64, 4)
    x[:, :, 0] = 1
    for row, at in enumerate((26, 33)):
        x[row, at : at + 3] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    seen = []
    features.dense.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features(x)
    by_position, pooled = seen[0].split([8 * 64, 8], dim=1)
    torch.testing.assert_close(pooled[0], pooled[1])
    assert not torch.allclose(by_position[0], by_position[1])


def test_few_rows_of_sequences_are_pooled():
    assert default_features(SequenceSpace("DNA", 9), 500).pooled
    assert not default_features(SequenceSpace("DNA", 9), 5000).pooled


def test_large_images_are_shrunk_before_a_dense_layer():
    small, large = ImageSpace(20, 32), ImageSpace(100, 80)
    assert default_features(small, 100).layers[1].in_features == 3 * 20 * 32
    features = default_features(large, 100)
    assert features.layers[1].in_features == 3 * 32 * 32
    x = torch.rand(2, *large.shape).requires_grad_()
    (gradient,) = torch.autograd.grad(features(x).sum(), x)
    assert gradient.flatten(1).any(dim=1).all()


def test_a_default_reward_of_large_images_sees_32_pixels_a_side():
    space = ImageSpace(96, 64, 1)
    parts = parts_for(space, torch.rand(20, *space.shape))
    assert parts.views(torch.rand(3, *space.shape))[LINEAR].shape == (3, 32 * 32)
