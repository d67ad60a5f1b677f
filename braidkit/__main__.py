"""``python -m braidkit``: the same as the command ``braidkit``."""

from braidkit.cli import main

if __name__ == "__main__":
    main()
