"""Kill a block at any of its changes of the file system."""

import os
from collections.abc import Callable

import pytest

CHANGES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir")


class Killed(BaseException):
    """Ends a block as a kill does: no change of the file system comes after it."""


def killed_at(n: int, monkeypatch: pytest.MonkeyPatch, block: Callable[[], object]) -> bool:
    """Run a block, and kill it at its n-th change of the file system; whether there was one."""
    done = 0

    def mortal(change: Callable[..., object]) -> Callable[..., object]:
        def change_or_die(*args: object, **kwargs: object) -> object:
            nonlocal done
            done += 1
            if done >= n:
                raise Killed
            return change(*args, **kwargs)

        return change_or_die

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # slow, and of no consequence while the machine runs
        for name in CHANGES:
            patch.setattr(os, name, mortal(getattr(os, name)))
        try:
            block()
        except Killed:
            return True
    return False
