"""Guard rails: patience, usual values, one warning per breach, and a stop with exit code 4."""

from __future__ import annotations

import pytest

from curiosft_cli.run.errors import GUARD, CurioError
from curiosft_cli.train.guards import Action, Breach, Guards, Rule, stop

RULES = (
    Rule("h", "the entropy has collapsed", below=0.1),
    Rule("h", "the entropy explodes", above=5.0),
    Rule("loss", "the loss has a spike", spike=3.0),
)


def guards(action: Action = "warn", patience: int = 2, window: int = 3) -> Guards:
    return Guards(RULES, action, patience, window)


def said(watch: Guards, values: list[dict[str, float]]) -> list[list[str]]:
    return [[breach.says for breach in watch.check(step, row)] for step, row in enumerate(values, start=1)]


def test_a_breach_is_told_once_when_it_has_lasted() -> None:
    found = said(guards(), [{"h": 0.05}, {"h": 0.04}, {"h": 0.03}, {"h": 1.0}, {"h": 0.01}, {"h": 0.01}])
    assert [len(step) for step in found] == [0, 1, 0, 0, 0, 1]
    assert found[1] == ["the entropy has collapsed: h = 0.04 is below 0.1 (2 steps, to 2)"]


def test_a_spike_is_measured_against_the_median_of_good_steps() -> None:
    """Usual 2.0 after three steps; 6.1 is more than three times that, and does not become usual itself."""
    watch = guards(patience=1)
    found = said(watch, [{"loss": 1.0}, {"loss": 9.0}, {"loss": 2.0}, {"loss": 5.9}, {"loss": 20.0}, {"loss": 20.0}])
    assert [len(step) for step in found] == [0, 0, 0, 0, 1, 0]


def test_what_is_not_finite_is_a_breach() -> None:
    assert "is not finite" in guards(patience=1).check(1, {"h": float("nan")})[0].says


def test_a_metric_that_is_absent_is_passed_over() -> None:
    assert guards(patience=1).check(1, {}) == []


def test_off_looks_at_nothing() -> None:
    assert guards("off", patience=1).check(1, {"h": 0.0}) == []


def test_only_stop_stops() -> None:
    stop([Breach("x", "y", False)])
    with pytest.raises(CurioError, match="collapsed") as caught:
        stop(guards("stop", patience=1).check(1, {"h": 0.05}))
    assert caught.value.exit_code == GUARD


def test_a_rule_has_an_action_and_a_cause_of_its_own() -> None:
    rule = Rule("h", "stuck", below=0.1, action="stop", cause=lambda row: (f"because {row['why']:g}", "Do this."))
    [found] = Guards([rule], "off", 1, 3).check(1, {"h": 0.0, "why": 7})
    assert found == ("stuck: h = 0 is below 0.1 (1 steps, to 1); because 7", "Do this.", True)


def test_a_resumed_run_goes_on_counting() -> None:
    first, rows = guards(patience=3), [{"h": 0.05, "loss": 1.0}] * 2
    said(first, rows)
    second = guards(patience=3)
    second.load(first.state())
    assert len(second.check(3, {"h": 0.05, "loss": 1.0})) == 1


def test_a_run_that_was_stopped_stops_again() -> None:
    first, rows = guards("stop"), [{"h": 0.05}] * 2
    said(first, rows)
    second = guards("stop")
    second.load(first.state())
    assert len(second.check(3, {"h": 0.05})) == 1
