"""Objectives of several measured quantities: small expressions, and their bounds by interval arithmetic."""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from braidkit.data import check_spread
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import is_number

# Deviations of the objective's value that one deviation of shortfall below a condition costs.
SHORTFALL_COST = 5.0
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
# Parts within parts of an expression: each takes a few frames of Python's stack.
_MAX_DEPTH = 100
_EXAMPLES = "'a - b', '0.7*a + 0.3*b', 'min(a, b)' or 'a if b >= 0.8'"


class Bounds(NamedTuple):
    """A quantity (n,): its mean, and bounds on either side."""

    mean: Tensor
    low: Tensor
    high: Tensor

    def times(self, factor: float) -> Bounds:
        """The product with a number, whose bounds change places if it is negative."""
        mean, low, high = (factor * part for part in self)
        return Bounds(mean, low, high) if factor >= 0 else Bounds(mean, high, low)


class Condition(NamedTuple):
    """``sign * expression >= sign * threshold``."""

    text: str
    expression: ast.expr
    threshold: float
    sign: int


@dataclass(frozen=True)
class Objective:
    """An expression of measured quantities, larger is better.

    Numbers, names, ``+``, ``-``, products and quotients with numbers, ``min(...)`` and ``max(...)``; after ``if``,
    conditions ``expression >= number`` or ``<= number``, joined by ``and``. Bounds follow by interval arithmetic: the
    lower bound of a difference uses the upper bound of the subtracted term. If all conditions are met by their
    pessimistic bounds, the value counts unchanged. Otherwise each deviation of shortfall, of the condition's own
    quantity, costs 5 deviations of the value.

    Attributes
    ----------
    text : str
        As it was written.
    names : tuple of str
        Names of the quantities, in the order of their columns.
    value : ast.expr
    conditions : tuple of Condition
    """

    text: str
    names: tuple[str, ...]
    value: ast.expr
    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str, names: Sequence[str]) -> Objective:
        """Read an objective of some quantities, all of which it must name.

        Raises
        ------
        InvalidParameterError
            Naming what cannot be read, a name that is no quantity, or a quantity that is not named.

        Examples
        --------
        >>> Objective.parse("affinity if expression >= 0.8", ["affinity", "expression"]).conditions[0].threshold
        0.8
        """
        if not isinstance(text, str) or not text.strip():
            raise InvalidParameterError(f"objective must be an expression such as {_EXAMPLES}; got {text!r}.")
        value, *rest = re.split(r"\bif\b", text)
        if len(rest) > 1:
            raise _refused(text, "has 'if' more than once; join conditions by 'and'")
        try:
            conditions = [_condition(part, text) for part in re.split(r"\band\b", rest[0])] if rest else []
            objective = cls(text, tuple(names), _expression(value, text), tuple(conditions))
        except RecursionError as error:
            raise _too_deep(text) from error
        used = set().union(*(objective._names_in(part) for part in objective._expressions()))
        unknown = sorted(used - set(names))
        if unknown:
            raise InvalidParameterError(
                f"objective {text!r} names {unknown[0]!r}, but what is measured is: {', '.join(names)}; name one of "
                "them."
            )
        unused = [name for name in names if name not in used]
        if unused:
            raise InvalidParameterError(f"objective {text!r} does not name {unused[0]!r}; leave that target out.")
        return objective

    def __getstate__(self) -> dict[str, object]:
        return {"text": self.text, "names": self.names}  # its trees can be read again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(vars(Objective.parse(**state)))

    def direction(self, name: str) -> int:
        """Whether more of a quantity is better, 1, or less, -1; 0 if neither."""
        signs = [1, *(condition.sign for condition in self.conditions)]
        return _direction(list(zip(self._expressions(), signs, strict=True)), name)

    def scales(self, columns: np.ndarray) -> tuple[float, ...]:
        """Deviations, over measured rows (n, n_names), of the value and of what each condition is of.

        Raises
        ------
        InvalidTargetError, InvalidParameterError
            Naming a quantity, or a part of the objective, that is the same in all rows.
        """
        for name, column in zip(self.names, columns.T, strict=True):
            check_spread(column, f"target {name!r}")
        bounds = self._exact(columns)
        found = []
        for part in self._expressions():
            spread = float(_evaluate(part, bounds).mean.expand(len(columns)).std(correction=0))
            if spread == 0:
                raise InvalidParameterError(
                    f"objective {self.text!r}: {ast.unparse(part)!r} is the same in all rows; check the columns."
                )
            found.append(spread)
        return tuple(found)

    def measured_value(self, columns: np.ndarray) -> np.ndarray:
        """The value (n,) of measured rows (n, n_names), whether or not conditions hold."""
        return _evaluate(self.value, self._exact(columns)).mean.expand(len(columns)).numpy().copy()

    def measured(self, columns: np.ndarray, scales: Sequence[float]) -> np.ndarray:
        """The objective (n,) of measured rows (n, n_names)."""
        return self.bounds(self._exact(columns), scales).mean.numpy().copy()

    def bounds(self, quantities: Mapping[str, Bounds], scales: Sequence[float]) -> Bounds:
        """The objective and its bounds, by those of the quantities; `scales` are those of measured rows."""
        total = _evaluate(self.value, quantities)
        for condition, scale in zip(self.conditions, scales[1:], strict=True):
            surplus = _evaluate(condition.expression, quantities).times(condition.sign)
            cost = SHORTFALL_COST * scales[0] / scale
            shortfall = Bounds(
                *(cost * (part - condition.sign * condition.threshold).clamp(max=0.0) for part in surplus)
            )
            total = _sum(total, shortfall)
        return total

    def unmet(self, quantities: Mapping[str, Bounds]) -> dict[str, Tensor]:
        """Booleans (n,) by the text of each condition: its bound does not meet it."""
        found = {}
        for condition in self.conditions:
            surplus = _evaluate(condition.expression, quantities).times(condition.sign)
            found[condition.text] = surplus.low < condition.sign * condition.threshold
        return found

    def _expressions(self) -> list[ast.expr]:
        return [self.value, *(condition.expression for condition in self.conditions)]

    def _exact(self, columns: np.ndarray) -> dict[str, Bounds]:
        """Measured columns as quantities without uncertainty."""
        parts = (torch.from_numpy(np.array(column, dtype=np.float64)) for column in columns.T)
        return {name: Bounds(part, part, part) for name, part in zip(self.names, parts, strict=True)}

    @staticmethod
    def _names_in(node: ast.expr) -> set[str]:
        calls = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and id(part) not in calls}


def _expression(text: str, whole: str) -> ast.expr:
    """The tree of an expression, all of whose parts are allowed."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except _UNREADABLE as error:
        raise _refused(whole, f"cannot be read at {text.strip()!r}") from error
    _check(node, whole)
    return node


def _condition(text: str, whole: str) -> Condition:
    """A comparison of an expression with a number."""
    node = None
    with contextlib.suppress(*_UNREADABLE):
        node = ast.parse(text.strip(), mode="eval").body
    if not isinstance(node, ast.Compare) or len(node.ops) != 1 or not isinstance(node.ops[0], (ast.GtE, ast.LtE)):
        raise _refused(whole, f"has the condition {text.strip()!r}; write 'name >= number' or 'name <= number'")
    _check(node.left, whole)
    threshold = _number(node.comparators[0])
    if threshold is None:
        raise _refused(whole, f"has the condition {text.strip()!r}, whose right side is no number")
    return Condition(text.strip(), node.left, threshold, 1 if isinstance(node.ops[0], ast.GtE) else -1)


def _check(node: ast.expr, whole: str, depth: int = 0) -> None:
    """Raise for what an objective may not have."""
    if depth > _MAX_DEPTH:
        raise _too_deep(whole)
    check = functools.partial(_check, whole=whole, depth=depth + 1)
    if isinstance(node, ast.Name) or _number(node) is not None:
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return check(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        check(node.left)
        return check(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        factor, other = _factor(node)
        if factor is None:
            raise _refused(whole, f"has {ast.unparse(node)!r}: multiply or divide by numbers only, not by zero")
        return check(other)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        if len(node.args) < 2 or node.keywords:
            raise _refused(whole, f"has {ast.unparse(node)!r}; give min and max two or more quantities")
        for part in node.args:
            check(part)
        return None
    raise _refused(whole, f"has {ast.unparse(node)!r}, which is none of what an objective may have")


def _too_deep(whole: str) -> InvalidParameterError:
    return _refused(f"{whole:.60}...", f"has parts within parts, more than {_MAX_DEPTH} deep; write it shorter")


def _refused(whole: str, why: str) -> InvalidParameterError:
    return InvalidParameterError(f"objective {whole!r} {why}; examples are {_EXAMPLES}.")


def _number(node: ast.expr) -> float | None:
    """The value of a number with or without a sign; None for anything else."""
    sign = 1
    while isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        sign = -sign if isinstance(node.op, ast.USub) else sign
        node = node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return sign * float(node.value) if is_number(node.value) else None
    return None


def _factor(node: ast.BinOp) -> tuple[float | None, ast.expr]:
    """The number of a product or quotient, and the rest; None where no number multiplies."""
    left, right = _number(node.left), _number(node.right)
    if isinstance(node.op, ast.Div):
        return (1 / right if right else None), node.left
    return (right, node.left) if right is not None else (left, node.right)


def _evaluate(node: ast.expr, quantities: Mapping[str, Bounds]) -> Bounds:
    """An expression that was checked, by interval arithmetic."""
    number = _number(node)
    if number is not None:
        exact = torch.tensor(number, dtype=torch.float64)
        return Bounds(exact, exact, exact)
    if isinstance(node, ast.Name):
        return quantities[node.id]
    if isinstance(node, ast.UnaryOp):
        return _evaluate(node.operand, quantities).times(-1 if isinstance(node.op, ast.USub) else 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        factor, rest = _factor(node)
        assert factor is not None
        return _evaluate(rest, quantities).times(factor)
    if isinstance(node, ast.BinOp):
        sign = 1 if isinstance(node.op, ast.Add) else -1
        return _sum(_evaluate(node.left, quantities), _evaluate(node.right, quantities).times(sign))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    pick = torch.minimum if node.func.id == "min" else torch.maximum
    parts = [_evaluate(part, quantities) for part in node.args]
    return functools.reduce(lambda a, b: Bounds(*(pick(one, other) for one, other in zip(a, b, strict=True))), parts)


def _sum(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(*(one + other for one, other in zip(a, b, strict=True)))


def _direction(parts: list[tuple[ast.expr, int]], name: str) -> int:
    """The sign with which a name enters expressions that have signs of their own; 0 for both."""
    signs = {sign * _sign(node, name) for node, sign in parts if name in Objective._names_in(node)}
    return signs.pop() if len(signs) == 1 else 0


def _sign(node: ast.expr, name: str) -> int:
    """The sign with which an expression that has a name depends on it; 0 for both."""
    if isinstance(node, ast.Name):
        return 1
    if isinstance(node, ast.UnaryOp):
        return _sign(node.operand, name) * (-1 if isinstance(node.op, ast.USub) else 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        factor, rest = _factor(node)
        return _sign(rest, name) * (-1 if (factor or 0) < 0 else 1)
    if isinstance(node, ast.BinOp):
        return _direction([(node.left, 1), (node.right, 1 if isinstance(node.op, ast.Add) else -1)], name)
    assert isinstance(node, ast.Call)
    return _direction([(part, 1) for part in node.args], name)
