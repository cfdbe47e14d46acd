"""Equality that Math-Verify does not see: of real functions, of equations, and of conditions. On sympy objects.

Two functions are the same when they have the same value at every sample point at which all their parts are real.
So `\\sqrt{k/m}` is `\\sqrt k/\\sqrt m`, but `\\sqrt{x^2}` is not `x`. The caller limits the time.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

DIGITS = 30
_TOLERANCE = 10.0**-20
_LEAST_POINTS = 3
_RANGES = ((0.1, 1.0), (1.0, 4.0), (5.0, 90.0), (-1.0, -0.1), (-4.0, -1.0), (-4.0, 4.0))


def same_function(first: Any, second: Any) -> bool:
    """Compare two expressions at sample points, from small to large, of both signs, and at whole numbers."""
    first, second = _exact(first), _exact(second)
    names = sorted(map(str, first.free_symbols | second.free_symbols))
    compared = 0
    for point in _points(len(names)):
        values = dict(zip(names, point, strict=True))
        ours, theirs = _real_value(first, values), _real_value(second, values)
        if ours is not None and theirs is not None:
            if abs(ours - theirs) > _TOLERANCE * (1 + abs(ours)):
                return False
            compared += 1
    return compared >= _LEAST_POINTS


def same_equation(first: Any, second: Any) -> bool:
    """Say whether one equation is the other, rearranged: multiplied by a constant, or solved for a variable."""

    if first.free_symbols != second.free_symbols:
        return False
    sides = [(_exact(equation.lhs), _exact(equation.rhs)) for equation in (first, second)]
    if _are_proportional(*(_numerator(left - right) for left, right in sides)):
        return True
    solved = [
        next(
            ((a, b) for a, b in ((left, right), (right, left)) if isinstance(a, sp.Symbol) and a not in b.free_symbols),
            None,
        )
        for left, right in sides
    ]
    return all(
        one is not None and same_function(other[0].subs(*one), other[1].subs(*one))
        for one, other in zip(solved, reversed(sides), strict=True)
    )


def same_condition(first: Any, second: Any) -> bool:
    """Compare conditions on one variable as sets of real numbers, others relation by relation.

    Each is alternatives of (readings of the left side, sign, readings of the right side), or readings of a set.
    """

    sides = [
        [[_relation(*relation) for relation in together] for together in one] if isinstance(one, list) else one[0]
        for one in (first, second)
    ]
    symbols = [_symbols(side) for side in sides if isinstance(side, list)]
    if any(names != symbols[0] for names in symbols):
        return False
    if len(symbols[0]) > 1:
        ours, theirs = (side[0] if isinstance(side, list) and len(side) == 1 else [] for side in sides)
        return len(ours) == len(theirs) > 0 and all(any(_same_relation(a, b) for b in ours) for a in theirs)
    sets = [_real_set(side) if isinstance(side, list) else side for side in sides]
    if not all(isinstance(one, sp.Set) for one in sets):
        return False
    return sets[0] == sets[1] or sets[0].symmetric_difference(sets[1]).is_empty is True


def _relation(left: tuple[Any, ...], sign: str, right: tuple[Any, ...]) -> Any:

    return {"<": sp.Lt, ">": sp.Gt, r"\le": sp.Le, r"\ge": sp.Ge, r"\ne": sp.Ne}[sign](
        _exact(left[0]), _exact(right[0])
    )


def _symbols(alternatives: list[list[Any]]) -> set[Any]:
    return {symbol for together in alternatives for relation in together for symbol in relation.free_symbols}


def _real_set(alternatives: list[list[Any]]) -> Any:
    """Return the numbers that meet a condition. Relations in a list that exclude each other are alternatives."""

    united = sp.S.EmptySet
    for together in alternatives:
        sets = [relation.as_set() for relation in together]
        united = sp.Union(united, sp.Intersection(*sets) or sp.Union(*sets))
    return united


def _same_relation(first: Any, second: Any) -> bool:
    """Compare two relations between several variables, such as `y > 2x` and `2y - 4x > 0`."""

    if isinstance(first, sp.Ne) != isinstance(second, sp.Ne):
        return False
    if isinstance(first, sp.Ne):
        return _are_proportional(first.lhs - first.rhs, second.lhs - second.rhs)
    is_strict = [relation.rel_op in ("<", ">") for relation in (first, second)]
    return is_strict[0] == is_strict[1] and _are_proportional(
        first.gts - first.lts, second.gts - second.lts, any_sign=False
    )


def _are_proportional(first: Any, second: Any, *, any_sign: bool = True) -> bool:
    names = sorted(map(str, first.free_symbols))
    for point in _points(len(names)):
        values = dict(zip(names, point, strict=True))
        ours, theirs = _real_value(first, values), _real_value(second, values)
        if ours and theirs:
            factor = ours / theirs
            return (any_sign or factor > 0) and same_function(first, factor * second)
    return False


def _numerator(expression: Any) -> Any:

    return sp.fraction(sp.together(expression))[0]


def _exact(expression: Any) -> Any:
    """Return an expression whose decimals are exact fractions, and in which `f(x)` is a variable."""

    exact = {number: sp.Rational(str(number)) for number in expression.atoms(sp.Float)}
    return expression.xreplace(exact | {f: sp.Symbol(str(f), real=True) for f in expression.atoms(AppliedUndef)})


@lru_cache(maxsize=16)
def _points(names: int, seed: int = 0, per_range: int = 4) -> list[list[Any]]:

    draw = random.Random(seed)
    points = [[draw.uniform(*ends) for _ in range(names)] for _ in range(per_range) for ends in _RANGES]
    points += [[float(draw.randint(1, 6)) for _ in range(names)] for _ in range(per_range)]
    return [[sp.Float(value, DIGITS) for value in point] for point in points]


def _real_value(expression: Any, values: dict[str, Any]) -> Any | None:
    """Return the value of an expression at a point, or None where a part of it is not real, or is no known function."""

    if isinstance(expression, sp.Symbol):
        return values[str(expression)]
    if isinstance(expression, sp.Number | sp.NumberSymbol):
        value = expression.evalf(DIGITS)
    elif isinstance(expression, sp.Add | sp.Mul | sp.Pow | sp.Function):
        parts = []
        for argument in expression.args:
            part = _real_value(argument, values)
            if part is None:
                return None
            parts.append(part)
        value = expression.func(*parts).evalf(DIGITS)
    else:
        return None
    return value if isinstance(value, sp.Float) or value == 0 else None
