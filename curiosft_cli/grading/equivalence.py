"""Equality that Math-Verify does not see: of real functions, of equations, and of conditions. On sympy objects.

Two functions are the same when they have the same value at every sample point at which all their parts are real.
So `\\sqrt{k/m}` is `\\sqrt k/\\sqrt m`, but `\\sqrt{x^2}` is not `x`. The caller limits the time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import chain
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

DIGITS = 30
_SAMPLE_DIGITS = 60
_TOLERANCE = 10.0**-20
_TINY = 10.0 ** (5 - DIGITS)
_LEAST_POINTS = 3
_RANGES = ((0.1, 1.0), (1.0, 4.0), (5.0, 5000.0), (-1.0, -0.1), (-4.0, -1.0), (-5000.0, -5.0), (-4.0, 4.0))


def same_number(gold: Any, answer: Any, places: int = 6) -> bool | None:
    """Compare to 30 digits; where one side has a decimal, to six places, and a tiny number also to three digits.

    None when a side is no number, or when the digits do not decide.
    """
    if not all(isinstance(side, sp.Expr) and side.is_number for side in (gold, answer)):
        return None
    try:
        values = [complex(number.evalf(DIGITS)) for number in (gold, answer)]
        size, distance = abs(values[0]), abs(values[0] - values[1])
        if gold.has(sp.Float) or answer.has(sp.Float):
            rounded = [(round(value.real, places), round(value.imag, places)) for value in values]
            return rounded[0] == rounded[1] and distance * 1000 <= size
        if math.inf > distance > size / 1000 + _TINY:
            return False
        left = abs(complex((answer - gold).evalf(DIGITS, maxn=200)))
    except (TypeError, OverflowError, ValueError):
        return None
    return True if left < _TINY * min(size or 1, 1) else None if size > 1 / 1000 else False


def same_expression(gold: Any, answer: Any) -> bool | None:
    """Compare two functions or two equations. None when they are neither, or too seldom real to be compared."""
    if isinstance(gold, sp.Eq) and isinstance(answer, sp.Eq):
        return same_equation(gold, answer)
    left = gold - answer if isinstance(gold, sp.Expr) and isinstance(answer, sp.Expr) else sp.nan
    return True if left == 0 else None if left.is_number else same_function(gold, answer)


def same_function(first: Any, second: Any) -> bool | None:
    """Compare two expressions at sample points, from small to large, of both signs, and at whole numbers."""
    first, second = _exact(first), _exact(second)
    pairs = 0
    for ours, theirs in _sampled(first, second):
        if abs(ours - theirs) > _TOLERANCE * (1 + abs(ours)):
            return False
        pairs += 1
    return True if pairs >= _LEAST_POINTS else None


def same_equation(first: Any, second: Any) -> bool | None:
    """Say whether one equation is the other, rearranged: multiplied by a constant, or solved for a variable."""
    sides = [(_exact(equation.lhs), _exact(equation.rhs)) for equation in (first, second)]
    differences = [sp.fraction(sp.together(left - right))[0] for left, right in sides]
    if 0 in differences:
        return differences == [0, 0] and first.free_symbols == second.free_symbols != set()
    if (same := _are_proportional(*differences)) is not False:
        return same
    for both, other in (sides, sides[::-1]):
        solved = [pair for pair in (both, both[::-1]) if pair[0].is_Symbol and pair[0] not in pair[1].free_symbols]
        if not solved or not same_function(*(side.subs(*solved[0]) for side in other)):
            return False
    return True


def condition(alternatives: list[Any]) -> list[list[Any]]:
    """Return the relations that hold together in each alternative, or none when one has something else.

    The parser reads a list of relations as a set of them, and `x \\ne 1, 2` as {x \\ne 1, 2}.
    """
    joined = []
    for part in alternatives:
        items = list(part) if isinstance(part, sp.FiniteSet) else [part]
        excluded = [item.lhs for item in items if isinstance(item, sp.Ne)]
        items = [sp.Ne(excluded[0], item) if excluded and isinstance(item, sp.Expr) else item for item in items]
        relations = [relation for item in items for relation in (item.args if isinstance(item, sp.And) else [item])]
        if not all(isinstance(relation, Relational) for relation in relations):
            return []
        joined.append([_exact(relation) for relation in relations])
    return joined


def same_condition(first: Any, second: Any) -> bool | None:
    """Compare conditions on one variable as sets of real numbers, others relation by relation. Either may be a set."""
    conditions = [list(chain(*side)) for side in (first, second) if isinstance(side, list)]
    names = {frozenset(sp.Tuple(*relations).free_symbols) for relations in conditions}
    if len(names) != 1:
        return False if names else None
    if len(names.pop()) == 1:
        sets = [_real_set(side) if isinstance(side, list) else side for side in (first, second)]
        return all(isinstance(one, sp.Set) for one in sets) and sets[0].symmetric_difference(sets[1]).is_empty is True
    ours, theirs = conditions if len(conditions) == 2 and len(first) == len(second) == 1 else ([], [])
    return len(ours) == len(theirs) > 0 and all(any(_same_relation(a, b) for b in ours) for a in theirs)


def _real_set(side: list[list[Any]]) -> Any:
    """Return the numbers that meet a condition. Relations in a list that exclude each other are alternatives."""
    return sp.Union(*(sp.And(*joined).as_set() or sp.Or(*joined).as_set() for joined in side))


def _same_relation(first: Any, second: Any) -> bool:
    """Compare two relations between several variables, such as `y > 2x` and `2y - 4x > 0`."""
    kinds = {relation.rel_op.replace("<", ">") for relation in (first, second)}
    differences = [getattr(one, "gts", one.lhs) - getattr(one, "lts", one.rhs) for one in (first, second)]
    return len(kinds) == 1 and bool(_are_proportional(*differences, any_sign=kinds <= {"==", "!="}))


def _are_proportional(first: Any, second: Any, *, any_sign: bool = True) -> bool | None:
    factor = next((ours / theirs for ours, theirs in _sampled(first, second) if theirs), None)
    if not factor:
        return factor if factor is None else False
    return (any_sign or factor > 0) and same_function(first, factor * second)


def _exact(expression: Any) -> Any:
    """Return an expression whose decimals are exact fractions, and in which `f(x)` is a variable."""
    exact = {number: sp.Rational(str(number)) for number in expression.atoms(sp.Float)}
    return expression.xreplace(exact | {f: sp.Symbol(str(f), real=True) for f in expression.atoms(AppliedUndef)})


def _sampled(first: Any, second: Any, seed: int = 0, per_range: int = 4, most: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield the values of both expressions at each sample point at which both have one.

    `most` variables or more are those of a formula, which stand for positive sizes.
    """
    names = sorted(first.free_symbols | second.free_symbols, key=str)
    draw = random.Random(seed)
    ranges = _RANGES[:3] if len(names) >= most and not (first.has(sp.Abs) or second.has(sp.Abs)) else _RANGES
    points = [[draw.uniform(*ends) for _ in names] for _ in range(per_range) for ends in ranges]
    points += [[float(draw.randint(1, 6)) for _ in names] for _ in range(per_range)]
    for point in points:
        values = {name: sp.Float(value, _SAMPLE_DIGITS) for name, value in zip(names, point, strict=True)}
        ours, theirs = _value(first, values), _value(second, values)
        if ours is not None and theirs is not None:
            yield ours, theirs


def _value(expression: Any, values: dict[Any, Any]) -> Any | None:
    """Return the value of an expression at a point, or None where it has none, or might have another one.

    A part that depends on the point must be real. Complex constants are only added, multiplied and raised to powers.
    """
    if expression in values or expression is sp.I:
        return values.get(expression, expression)
    if not isinstance(expression, sp.Number | sp.NumberSymbol | sp.Add | sp.Mul | sp.Pow | sp.Function):
        return None
    parts = [part for argument in expression.args if (part := _value(argument, values)) is not None]
    if len(parts) < len(expression.args):
        return None
    are_real = all(part.is_real for part in parts)
    is_entire = isinstance(expression, sp.Add | sp.Mul | sp.exp) or (expression.is_Pow and expression.exp.is_Integer)
    if not (are_real or is_entire):
        return None
    try:
        value = (expression.func(*parts) if parts else expression).evalf(_SAMPLE_DIGITS)
    except ValueError:  # a pole
        return None
    may_be_complex = not are_real or expression.is_number
    return value if value.is_Float or value == 0 or (may_be_complex and value.is_finite and value.is_number) else None
