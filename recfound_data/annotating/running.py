"""One run of questions: several under way at once, repeated when they fail, within the budget."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from recfound_data.annotating.answers import Answers
from recfound_data.annotating.asking import Asking, Question
from recfound_data.annotating.budget import Budget, Spending
from recfound_data.annotating.endpoint import AgainError, Endpoint, Pause, RefusedError
from recfound_data.errors import RecfoundError
from recfound_data.people import EMAIL, PHONE
from recfound_data.progress import Progress

_FAILURES_IN_A_ROW = 5
"""Questions that get no answer one after the other, for each connection, before all is given up."""
_PERSON = re.compile(f"{EMAIL}|{PHONE}")
_BUDGET, _STOPPED = "the budget is spent", "not asked"


class Run:
    """Asks what has no answer yet, several questions at once."""

    def __init__(self, asking: Asking, spending: Spending, answers: Answers, quiet: bool) -> None:
        self._asking, self._answers, self._quiet = asking, answers, quiet
        self._budget = Budget(spending, spending.counted(*answers.spent()))
        self._pause = Pause()
        self._failures: dict[str, str] = {}
        self._in_a_row = 0
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._last = ""

    def ask(self, questions: list[Question]) -> dict[str, str]:
        """Ask, and return why questions have no answer, by their key.

        Raises:
            RecfoundError: the endpoint refuses all questions, or fails at one after the other.
        """
        left = []
        for key, found in {found.key: found for found in questions}.items():
            if _PERSON.search(found.text):
                self._failures[key] = "the prompt holds an e-mail address or phone number"
            elif key not in self._answers:
                left.append(found)
        self._endpoint = Endpoint(self._asking.endpoint, self._asking.timeout, self._asking.concurrency)
        slots = threading.BoundedSemaphore(self._asking.concurrency)
        pool = ThreadPoolExecutor(self._asking.concurrency, "ask")
        progress: AbstractContextManager[Any] = (
            nullcontext() if self._quiet or not left else Progress("asking", len(left))
        )
        try:
            with progress as shown:
                for number, found in enumerate(left):
                    slots.acquire()
                    if self._pause.stopped.is_set():
                        break
                    if not self._budget.hold(found.most_input, found.most_output):
                        with self._lock:
                            self._failures |= {other.key: _BUDGET for other in left[number:]}
                        break
                    pool.submit(self._answer, found, slots, shown)
                pool.shutdown()
        finally:
            self._pause.stopped.set()
            pool.shutdown()  # what is under way may be paid already: its answers are waited for
            self._endpoint.close()
        if self._error is not None:
            raise self._error
        return self._failures

    def _answer(self, found: Question, slots: threading.BoundedSemaphore, shown: Progress | None) -> None:
        try:
            failure = self._attempts(found)
            with self._lock:
                if failure:
                    self._failures[found.key] = failure
                self._in_a_row = self._in_a_row + 1 if failure and failure != _BUDGET else 0
                if self._in_a_row >= _FAILURES_IN_A_ROW * self._asking.concurrency:
                    raise RecfoundError(
                        f"{self._asking.endpoint}: gives no answer to one question after the other ({self._last}); "
                        "what was answered is kept, run the same command again to go on"
                    )
                if shown is not None:
                    shown.advance()
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self._pause.stopped.set()
            self._budget.close()
        finally:
            slots.release()

    def _attempts(self, found: Question) -> str:
        """Ask until there is an answer, and return why there is none; the question's bound is held when this begins."""
        bound, patience = (found.most_input, found.most_output), self._asking.patience
        attempt = 0
        while True:
            self._pause.wait()
            if self._pause.stopped.is_set():
                self._budget.settle(bound, (0, 0))
                return _STOPPED
            attempt += 1
            self._answers.ask(found)
            try:
                reply = self._endpoint.send(found.body, found.key)
            except AgainError as error:
                self._last = str(error)
                wait = patience.wait(attempt, error.wait)
                if error.wait is not None:
                    self._pause.until(wait)
                if error.paid:
                    self._budget.settle(bound, bound)
                else:
                    self._answers.unpaid(found)
                if attempt >= patience.attempts:
                    if not error.paid:
                        self._budget.settle(bound, (0, 0))
                    return "no answer"
                self._pause.wait(wait)
                if error.paid and not self._budget.hold(*bound):
                    return _BUDGET
            except (RefusedError, RecfoundError) as error:
                self._answers.unpaid(found)
                self._budget.settle(bound, (0, 0))
                if isinstance(error, RecfoundError):
                    raise
                self._last = str(error)
                return "the endpoint refuses the prompt"
            else:
                answer = self._answers.keep(found, reply)
                self._budget.settle(bound, (answer.tokens_in, answer.tokens_out))
                return ""
