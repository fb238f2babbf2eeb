"""The turnstile gives a lock to threads in the order in which they came."""

import threading
import time
from collections.abc import Callable

import pytest

from catalog.turnstile import Turnstile

LIMIT_S = 30.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_who_leaves_and_comes_again_is_behind_those_who_wait() -> None:
    turnstile, order = Turnstile(), list[str]()

    def take(name: str) -> None:
        with turnstile:
            order.append(name)

    threads = [threading.Thread(target=take, args=(f"other {n}",)) for n in range(5)]
    with turnstile:
        for n, thread in enumerate(threads):
            thread.start()
            until(lambda n=n: turnstile.waiting == n + 1)  # type: ignore[misc]
    take("again")
    for thread in threads:
        thread.join(LIMIT_S)
    assert order == [*(f"other {n}" for n in range(5)), "again"]


def test_only_one_is_inside() -> None:
    turnstile, inside, most = Turnstile(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turnstile:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1


def test_an_error_inside_lets_the_next_in() -> None:
    turnstile = Turnstile()
    with pytest.raises(KeyboardInterrupt), turnstile:
        raise KeyboardInterrupt
    with turnstile:
        assert turnstile.waiting == 0
