from __future__ import annotations

import functools
from concurrent.futures import Future

import pytest

from exporters import comparing


class Second:
    """A second process that does nothing until it is told to."""

    def __init__(self):
        self.asked = []

    def submit(self, path, function, *arguments):
        future = Future()
        self.asked.append((path, future, function(*arguments)))
        return future

    def begin(self):
        _, future, result = self.asked.pop(0)
        assert future.set_running_or_notify_cancel()
        return lambda: future.set_result(f"{result} there")

    def do(self):
        self.begin()()


def square(path):
    return f"{path} compared"


def work(name, told, second=None):
    told.append(f"write {name}")
    comparison = comparing.Comparison(lambda: f"{square(name)} here")
    if second:
        begun = functools.partial(told.append, f"begin {name} there")
        comparison.start(second, name, square, begun=begun)
    yield comparison
    result = comparison.result()
    told.append(f"place {name}")
    return result


def test_without_a_second_process_one_comes_after_the_other():
    told = []
    found = comparing.results(work(n, told) for n in "ab")
    assert found == ["a compared here", "b compared here"]
    assert told == ["write a", "place a", "write b", "place b"]


def test_what_the_second_process_did_not_begin_is_done_here():
    told, second = [], Second()
    found = comparing.results(work(n, told, second) for n in "abc")
    assert found == ["a compared here", "b compared here", "c compared here"]
    # The last written first: the second process begins with the others.
    assert told == [
        *("write a", "write b", "write c"),
        *("place c", "place b", "place a"),
    ]


def test_what_is_compared_is_placed_before_more_is_written():
    told, second = [], Second()

    def works():
        yield work("a", told, second)
        yield work("b", told, second)
        second.do()
        yield work("c", told, second)

    found = comparing.results(works())
    assert found == ["a compared there", "b compared here", "c compared here"]
    assert told[:4] == ["write a", "write b", "write c", "place a"]


def test_what_the_second_process_came_to_is_told_once():
    told, second = [], Second()

    def works():
        yield work("a", told, second)
        yield work("b", told, second)
        end = second.begin()
        yield work("c", told, second)
        yield work("d", told, second)
        end()

    found = comparing.results(works())
    assert found[0] == "a compared there"
    assert told[:6] == [
        *("write a", "write b", "write c", "begin a there", "write d", "place a")
    ]


def test_what_the_second_process_is_at_is_waited_for():
    told, second = [], Second()
    a = work("a", told, second)
    comparison = next(a)
    end = second.begin()
    assert comparison.waits
    end()
    assert not comparison.waits
    with pytest.raises(StopIteration) as returned:
        next(a)
    assert returned.value.value == "a compared there"


def test_work_that_fails_without_a_comparison_has_a_result():
    def failed():
        if True:
            return "no room"
        yield

    assert comparing.results([failed()]) == ["no room"]


def test_an_interruption_closes_what_waits():
    told, second = [], Second()

    def waiting():
        try:
            yield from work("a", told, second)
        finally:
            told.append("clear a")

    def interrupted():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        comparing.results([waiting(), interrupted()])
    assert told == ["write a", "clear a"]
