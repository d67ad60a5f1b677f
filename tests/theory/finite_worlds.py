"""Random finite worlds, and their paths one by one."""

import math

import torch

from braidkit.theory import FiniteChain


def random_law(*shape, generator, zeros=0.0):
    """Log-probabilities along the last dimension; about a share `zeros` of them -inf, never a whole row."""
    logits = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    gone = torch.rand(*shape, generator=generator) < zeros
    gone.scatter_(-1, torch.randint(shape[-1], (*shape[:-1], 1), generator=generator), False)
    return logits.masked_fill(gone, -torch.inf).log_softmax(dim=-1)


def random_chain(sizes, generator, zeros=0.0):
    """A chain with sizes[t] states at level t = 0, ..., T."""
    policies = [random_law(sizes[t], sizes[t - 1], generator=generator, zeros=zeros) for t in range(1, len(sizes))]
    return FiniteChain(random_law(sizes[-1], generator=generator, zeros=zeros), policies)


def random_sizes(generator, largest=4, most_steps=4):
    """Numbers of states of 2 to most_steps + 1 levels."""
    n_levels = int(torch.randint(2, most_steps + 2, (1,), generator=generator))
    return torch.randint(1, largest + 1, (n_levels,), generator=generator).tolist()


def random_world(seed, zeros=0.3):
    """A pretrained chain, a reward of its designs and an alpha between 0.05 and 5."""
    generator = torch.Generator().manual_seed(seed)
    sizes = random_sizes(generator)
    chain = random_chain(sizes, generator, zeros)
    reward = torch.randn(sizes[0], generator=generator, dtype=torch.float64)
    alpha = 0.05 * 100 ** float(torch.rand(1, generator=generator))
    return chain, reward, alpha, generator


def random_rival(chain, generator):
    """Other policies on the support of the chain, at a random distance."""
    distance = 3 * float(torch.rand(1, generator=generator))
    tables = [
        (table + distance * torch.randn(table.shape, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)
        for table in (chain.log_initial, *chain.log_policies)
    ]
    return FiniteChain(tables[0], tables[1:])


def path_law(chain):
    """Log-probabilities of all paths, of shape (S_T, ..., S_0): one product for each of them."""
    law = chain.log_initial
    for policy in reversed(chain.log_policies):
        law = law[..., None] + policy
    return law


def enumerated_kl(log_p, log_q):
    """KL by a loop over single outcomes."""
    total = 0.0
    for p, q in zip(log_p.flatten().tolist(), log_q.flatten().tolist(), strict=True):
        if p > -torch.inf:
            total += math.exp(p) * (p - q)
    return total
