"""The pool: order, streaming, hard limits, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool
from curiosft_cli.run.errors import CurioError

HANGS = "9^{9^{9}}"
ROOT = Path(__file__).parents[2]


def item(answer: str, gold: str = "5") -> GradeItem:
    return GradeItem(f"a</think>\\boxed{{{answer}}}", Problem(answer, "?", gold))


def is_gone(pid: int, patience_s: float = 30.0) -> bool:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def pids(pool: GraderPool) -> list[int]:
    return [worker.process.pid for worker in pool._workers]


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(2, library_timeout_s=1) as shared:
        yield shared


def test_grades_come_in_input_order(pool: GraderPool) -> None:
    answers = [str(n) for n in range(200)]
    grades = list(pool.grade_in_order([item(answer, gold="7") for answer in answers]))
    assert [g.extracted for g in grades] == answers
    assert [index for index, g in enumerate(grades) if g.strict] == [7]


def test_options_reach_the_worker(pool: GraderPool) -> None:
    problem = Problem("p", "?", "B", kind="choice", choices=("x", "y"))
    official = GradeItem("so \\boxed{5}\n</think>\nDone.", Problem("q", "?", "5"), grader="official")
    bare = GradeItem("<think>a</think>\\boxed{B}", problem, prefilled=False)
    cut = GradeItem("a</think>\\boxed{5}STOP\\boxed{6}", Problem("r", "?", "5"), end_tokens=("STOP",))
    late = GradeItem("thinking", Problem("s", "?", "5"), truncated=True)
    grades = list(pool.grade_in_order([official, bare, cut, late]))
    assert [g.answer for g in grades] == [1.0, 1.0, 1.0, 0.0]
    assert (grades[0].strict, grades[1].letter, grades[3].reason) == (0.0, "B", "truncated")


def test_odd_characters_travel(pool: GraderPool) -> None:
    grades = list(pool.grade_in_order([item("\ud8005"), item("5\x00"), item("\u200b５"), item("😀")]))
    assert [g.strict for g in grades] == [1.0, 1.0, 1.0, 0.0]


def test_big_completions_do_not_block(pool: GraderPool) -> None:
    items = [GradeItem("hmm " * 250_000 + f"</think>\\boxed{{{n % 2}}}", Problem(str(n), "?", "1")) for n in range(12)]
    assert [g.strict for g in pool.grade_in_order(items)] == [0.0, 1.0] * 6


def test_streaming_returns_every_key_once(pool: GraderPool) -> None:
    for n in range(50):
        pool.submit(("row", n), GradeItem(f"a</think>\\boxed{{{n}}}", Problem(str(n), "?", "3")))
    graded = pool.poll(timeout_s=30)
    assert graded
    graded += list(pool.drain())
    assert len(graded) == 50 and {key for key, _ in graded} == {("row", n) for n in range(50)}
    assert [key for key, grade in graded if grade.strict] == [("row", 3)]
    assert pool.pending == 0 and pool.poll() == [] and list(pool.drain()) == []


def test_grades_in_order_leave_streamed_grades_for_poll(pool: GraderPool) -> None:
    pool.submit("mine", GradeItem("a</think>\\boxed{5}", Problem("p", "?", "5")))
    assert [g.strict for g in pool.grade_in_order([item("5"), item("6")])] == [1.0, 0.0]
    assert [(key, grade.strict) for key, grade in pool.drain()] == [("mine", 1.0)]


def test_ungradable_gold_is_null(pool: GraderPool) -> None:
    assert next(pool.grade_in_order([item("5", gold="")])).strict is None


def test_hard_deadline_kills_the_item_and_only_it() -> None:
    with GraderPool(1, deadline_s=1.0, library_timeout_s=60) as pool:
        before = pids(pool)
        grades = list(
            pool.grade_in_order([item("5"), item(HANGS), *[item("5") for _ in range(20)], item(HANGS), item("4")])
        )
        assert [g.status for g in grades] == ["ok", "timeout", *["ok"] * 20, "timeout", "ok"]
        assert grades[1] == Grade(0.0, 0.0, HANGS, None, "timeout", "timeout")
        assert [g.strict for g in grades] == [1.0, 0.0, *[1.0] * 20, 0.0, 0.0]
        assert all(is_gone(pid) for pid in before)


def test_library_timeout_keeps_the_worker() -> None:
    with GraderPool(1, library_timeout_s=1) as pool:
        before = pids(pool)
        assert [g.status for g in pool.grade_in_order([item(HANGS), item("5")])] == ["timeout", "ok"]
        assert pids(pool) == before


def test_a_large_parent_does_not_make_its_workers_look_large() -> None:
    """A child's peak memory as the kernel counts it starts with its parent's: every item cost a new worker."""
    ballast = bytearray(os.urandom(4096)) * (5 * 2**30 // 4 // 4096)  # 1.25 GiB; workers of 2 GiB retire at 1
    with GraderPool(1, memory_gib=2.0) as pool:
        list(pool.grade_in_order([item("5")]))
        before = pids(pool)
        list(pool.grade_in_order([item("\\frac{10}{2}"), item("\\sqrt{25}"), item("5")]))
        assert pids(pool) == before
    assert len(ballast) > 2**30


def test_a_killed_worker_costs_one_item() -> None:
    with GraderPool(1, library_timeout_s=60, deadline_s=60) as pool:
        list(pool.grade_in_order([item("5")]))
        for answer in (HANGS, "5", "6"):
            pool.submit(answer, GradeItem(f"a</think>\\boxed{{{answer}}}", Problem(answer, "?", "5")))
        os.kill(pids(pool)[0], signal.SIGKILL)
        grades = dict(pool.drain())
        assert grades[HANGS].status == "crash" and grades[HANGS].reason == "wrong"
        assert (grades["5"].strict, grades["6"].strict) == (1.0, 0.0)


def test_memory_limit_is_a_status() -> None:
    with GraderPool(1, memory_gib=0.2, library_timeout_s=60, deadline_s=60) as pool:
        grades = list(pool.grade_in_order([item("2^{3000000000}"), item("5")]))
        assert grades[0].status in ("oom", "crash") and grades[0].strict == 0.0
        assert grades[1].strict == 1.0


def test_a_worker_that_held_half_its_memory_is_replaced_after_its_item() -> None:
    long = GradeItem("hm " * 25_000_000 + "</think>\\boxed{5}", Problem("p", "?", "5"))
    with GraderPool(1, memory_gib=0.6) as pool:
        assert next(pool.grade_in_order([item("5")])).strict == 1
        before = pids(pool)
        assert [g.strict for g in pool.grade_in_order([long, item("5")])] == [1, 1]
        assert pids(pool) != before and is_gone(before[0])


def test_close_leaves_no_process() -> None:
    pool = GraderPool(2)
    processes = pids(pool)
    pool.close()
    pool.close()
    assert all(is_gone(pid) for pid in processes)
    with pytest.raises(CurioError, match="closed"):
        pool.submit("k", GradeItem("text", Problem("p", "?", "5")))


def test_an_error_in_the_caller_closes_the_pool() -> None:
    processes: list[int] = []
    with pytest.raises(ZeroDivisionError), GraderPool(1) as pool:
        processes += pids(pool)
        raise ZeroDivisionError
    assert all(is_gone(pid) for pid in processes)


@pytest.mark.parametrize("state", ["idle", "busy", "idle, made in a thread"])
def test_workers_die_with_a_killed_parent(state: str) -> None:
    script = f"""
        import threading, time
        from curiosft_cli.grading.pool import GraderPool
        from curiosft_cli.grading.grade import GradeItem
        from curiosft_cli.data.records import Problem
        made = []
        make = threading.Thread(target=lambda: made.append(GraderPool(2, deadline_s=600, library_timeout_s=600)))
        make.start() if "thread" in {state!r} else make.run()
        while not made:
            time.sleep(0.01)
        pool = made[0]
        list(pool.grade_in_order([GradeItem("a</think>\\\\boxed{{5}}", Problem("p", "?", "5"))]))
        for n in range({4 if state == "busy" else 0}):
            pool.submit(n, GradeItem("a</think>\\\\boxed{{{HANGS}}}", Problem("p", "?", "5")))
        print(*[worker.process.pid for worker in pool._workers], flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert parent.stdout is not None
        processes = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(processes) == 2
    finally:
        parent.kill()
        parent.communicate()
    assert all(is_gone(pid) for pid in processes)


def test_workers_neither_import_torch_nor_the_callers_main(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from pathlib import Path
            Path("imported.txt").open("a").write("x")
            from curiosft_cli.grading.pool import GraderPool
            from curiosft_cli.grading.grade import GradeItem
            from curiosft_cli.data.records import Problem
            with GraderPool(1) as pool:
                grades = list(pool.grade_in_order([GradeItem("a</think>\\\\boxed{5}", Problem("p", "?", "5"))]))
                maps = Path(f"/proc/{pool._workers[0].process.pid}/maps").read_text()
            print(grades[0].strict, "libtorch" in maps, "torch" in sys.modules, "sympy" in sys.modules)
        """)
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert run.stdout.split() == ["1.0", "False", "False", "False"]
    assert (tmp_path / "imported.txt").read_text() == "x"


def test_a_pool_made_in_a_thread_outlives_that_thread() -> None:
    made: list[GraderPool] = []
    thread = threading.Thread(target=lambda: made.append(GraderPool(1)))
    thread.start()
    thread.join()
    with made[0] as pool:
        assert next(pool.grade_in_order([item("\\sqrt{25}")])).strict == 1.0


def test_limits_must_be_positive() -> None:
    for make in (
        lambda: GraderPool(0),
        lambda: GraderPool(1, deadline_s=0),
        lambda: GraderPool(1, library_timeout_s=0),
        lambda: GraderPool(1, memory_gib=-1),
    ):
        with pytest.raises(CurioError, match="positive"):
            make()


def test_a_worker_that_cannot_start_is_an_error_not_a_hang() -> None:
    with GraderPool(1, memory_gib=0.01) as pool, pytest.raises(CurioError, match="does not start"):
        list(pool.grade_in_order([item("5")]))
