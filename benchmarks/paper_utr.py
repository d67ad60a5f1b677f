"""The paper's 5'UTR experiment at the size of the machine: Figure 2's methods, the ablation over c, and two judges.

    python benchmarks/paper_utr.py --data-home DATA --out results/paper_utr --size cpu --n-offline 2000

The 280,000 sequences of Sample et al. (2019) are split at random into D_ora, which trains an Enformer-style oracle, and
D', whose rows below the 60 % quantile are the offline data. All their sequences train the shared diffusion model; a
regime takes some of their measurements. Designs are judged by that oracle and by Optimus 5-Prime, a published model
that has seen most of these measurements and takes no part in any fit. Prints tables with 95 % intervals over seeds and
differences to STRL paired by seed; when STRL and BRAID over-optimise, and what was kept; coverage of the bound.
Every stage is kept in OUT and not done again.
"""

from paper import arguments, measured_utrs, run


def main() -> None:
    given, size = arguments(__doc__)
    split, optimus = measured_utrs(given.data_home)
    run("5'UTR", split, size, given, {"Optimus 5-Prime": optimus})


if __name__ == "__main__":
    main()
