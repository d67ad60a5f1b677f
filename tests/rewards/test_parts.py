import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.rewards import parts
from braidkit.rewards.parts import LENGTHS, OTHER_END, SUMS, SequenceParts, VectorParts, interactions, parts_for
from braidkit.rewards.sum_kernel import SumKernelProcess
from braidkit.spaces import ImageSpace, SequenceSpace, VectorSpace

PROTEIN = "ACDEFGHIKLMNPQRSTVWY"


def random_sequences(n, length, seed=0, letters="ACGT"):
    rng = np.random.default_rng(seed)
    return ["".join(row) for row in rng.choice(list(letters), size=(n, length))]


@pytest.mark.parametrize("cached", [2**16, 8])
def test_interactions_are_sums_over_sets_of_positions(cached, monkeypatch):
    monkeypatch.setattr(parts, "CACHED_NUMBERS", cached)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 7, 3, generator=generator, dtype=torch.float64) for n in (5, 4))
    found = interactions(a, b, SUMS)
    m = torch.einsum("nik,mik->inm", a, b)
    sets = {
        "letters": [(i,) for i in range(7)],
        "neighbours": [(i, j) for i, j in itertools.combinations(range(7), 2) if j - i <= 3],
        "pairs": list(itertools.combinations(range(7), 2)),
        "triples": [(i, i + 1, i + 2) for i in range(5)],
        "quadruples": [(i, i + 1, i + 2, i + 3) for i in range(4)],
    }
    for name, expected in sets.items():
        torch.testing.assert_close(found[name], sum(m[list(s)].prod(dim=0) for s in expected))


@pytest.mark.parametrize("wanted", [SUMS, ("letters",), ("neighbours",), ("pairs",), ("triples",), ("quadruples",)])
def test_gradients_of_interactions(wanted):
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(n, 6, 2, generator=generator, dtype=torch.float64).requires_grad_() for n in (3, 4))
    assert torch.autograd.gradcheck(lambda a, b: tuple(interactions(a, b, wanted).values()), (a, b))
    # Sets of one point, of which a diagonal is made.
    alone = a[:, None]
    assert torch.autograd.gradcheck(lambda a: tuple(interactions(a, a, wanted).values()), (alone,))


def test_kmers_are_counted():
    X = random_sequences(50, 12)
    space = SequenceSpace("DNA", 12)
    parts = SequenceParts(space, space.encode(X))
    views = parts.views(space.encode(["ACGACGACGTTT", "TTTTTTTTTTTT"]))
    for k, word, counts in ((2, "AC", (3, 0)), (3, "ACG", (3, 0)), (3, "TTT", (1, 10)), (4, "ACGA", (2, 0))):
        column = sum("ACGT".index(letter) * 4**i for i, letter in enumerate(reversed(word)))
        difference = views[f"{k}-mers"][0, column] - views[f"{k}-mers"][1, column]
        assert float(difference) == pytest.approx(counts[0] - counts[1])
    gap_of_one = "ACGT".index("A") * 4 + "ACGT".index("G")  # A?G, the first of the gaps
    difference = views["gapped pairs"][0, gap_of_one] - views["gapped pairs"][1, gap_of_one]
    assert float(difference) == 3.0


@pytest.mark.parametrize("padding", ["right", "left"])
def test_letters_of_several_lengths_are_told_from_both_ends(padding):
    space = SequenceSpace("DNA", (2, 4), padding=padding)
    parts = SequenceParts(space, space.encode(["ACGT", "GT", "CGT", "TTTT"]))
    assert parts.groups[-1] == [OTHER_END, LENGTHS] and {*parts.groups[-1]} <= {*parts.names}
    views = parts.views(space.encode(["ACGT", "GT", "CGT"]).double())
    ends = views[OTHER_END] + parts.get_buffer(f"mean of {OTHER_END}")
    rows = ["ACGT", "__GT", "_CGT"] if padding == "right" else ["TGCA", "__TG", "_TGC"]
    expected = [[float(letter == one) for letter in row for one in "ACGT"] for row in rows]
    torch.testing.assert_close(ends, torch.tensor(expected, dtype=torch.float64))
    lengths = views[LENGTHS] + parts.get_buffer(f"mean of {LENGTHS}")
    torch.testing.assert_close(lengths, torch.eye(3, dtype=torch.float64)[[2, 0, 1]])


def test_sequences_of_one_length_have_no_part_of_the_other_end():
    space = SequenceSpace("DNA", 5)
    assert not {OTHER_END, LENGTHS} & {*SequenceParts(space, space.encode(random_sequences(20, 5))).names}


def test_what_stands_near_the_end_of_sequences_of_several_lengths_is_learned():
    """The measurement is told by the last residue but one, wherever that stands."""
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list(PROTEIN), rng.integers(6, 13))) for _ in range(360)]
    y = torch.tensor([(row[-2] in "GAVL") - 0.5 * (row[-2] in "DE") + 0.15 * rng.normal() for row in X]).double()
    y = (y - y.mean()) / y.std()
    space = SequenceSpace("protein", (6, 12))
    x = space.encode(X).double()
    learned = SumKernelProcess(parts_for(space, x), None)
    learned.fit(x[:260], y[:260], None, random_state=np.random.RandomState(0))
    assert float((learned(x[260:])[0].detach() - y[260:]).square().mean()) < 0.4


@pytest.mark.parametrize(
    ("space", "x"),
    [
        (SequenceSpace("DNA", (4, 10), padding="right"), None),
        (SequenceSpace("DNA", (4, 10), padding="left"), None),
        (SequenceSpace("DNA", 10), None),
        (SequenceSpace("protein", 3), None),
        (SequenceSpace("DNA", 1), None),
        (SequenceSpace("DNA", 70), None),
        (VectorSpace(3), torch.randn(40, 3)),
        (VectorSpace(1), torch.randn(40, 1)),
        (ImageSpace(4, 4, 1), torch.rand(40, 1, 4, 4)),
    ],
)
def test_parts_are_kernels_of_mean_diagonal_one(space, x):
    if x is None:
        lengths = np.random.default_rng(1).integers(space.letters.shortest, space.length + 1, 40)
        rows = random_sequences(40, space.length, letters=space.alphabet)
        x = space.encode([row[:length] for row, length in zip(rows, lengths, strict=True)])
    x = x.double()
    parts = parts_for(space, x)
    views = parts.views(x)
    matrices, diagonals = parts.matrices(views, views, parts.names), parts.diagonals(views, parts.names)
    assert list(matrices) == parts.names
    for name, matrix in matrices.items():
        torch.testing.assert_close(matrix.diagonal(), diagonals[name])
        assert float(matrix.diagonal().mean()) == pytest.approx(1.0)
        assert torch.linalg.eigvalsh(matrix).min() > -1e-9 * len(x), name


@settings(max_examples=10, deadline=None)
@given(length=st.integers(1, 12), seed=st.integers(0, 99))
def test_parts_are_kernels_and_smooth_at_relaxed_points(length, seed):
    space = SequenceSpace("DNA", length)
    parts = SequenceParts(space, space.encode(random_sequences(20, length, seed)))
    logits = torch.randn(8, length, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.softmax(logits, dim=2).requires_grad_()
    views = parts.views(x)
    matrices = parts.matrices(views, views, parts.names)
    for name, matrix in matrices.items():
        assert torch.linalg.eigvalsh(matrix.detach()).min() > -1e-9, name
        (gradient,) = torch.autograd.grad(matrix.sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_constant_positions_do_not_matter_until_they_change():
    X = [row + "A" for row in random_sequences(30, 5)]
    space = SequenceSpace("DNA", 6)
    parts = SequenceParts(space, space.encode(X))
    same, changed = (parts.views(space.encode([X[0][:5] + last])) for last in "AC")
    assert float(parts.diagonals(changed, ["letters"])["letters"]) > 1.2 * float(
        parts.diagonals(same, ["letters"])["letters"]
    )


def test_a_vector_s_columns_weigh_alike_in_any_units():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    scaled = x * torch.tensor([1.0, 1e3, 1e-3]) + 5
    views, others = (VectorParts(one).views(one) for one in (x, scaled))
    torch.testing.assert_close(views["linear"], others["linear"], rtol=1e-2, atol=1e-2)
