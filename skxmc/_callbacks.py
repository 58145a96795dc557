"""A fit as scikit-learn's callbacks see it: epochs, and steps in them. They came with 1.9."""

import threading
from contextlib import contextmanager

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""


# A callback is told of at most so many steps of an epoch: each leaves an object behind.
MAX_TICKS = 100


class Tasks:
    """Tells the callbacks of an estimator, if it has any, how far its fit is.

    X, y : what callbacks may score. fitted() : the fitted attributes as if the fit ended now.
    """

    def __init__(self, estimator, X, y, n_epochs, n_steps, fitted):
        self._estimator, self._data, self._fitted = estimator, {"X": X, "y": y}, fitted
        self._n_steps, self._lock = n_steps, threading.Lock()
        self._root, self.stopped = None, False
        if getattr(estimator, "_skl_callbacks", None) or hasattr(estimator, "_parent_callback_ctx"):
            self._root = estimator._init_callback_context(max_subtasks=n_epochs)
            self._root.call_on_fit_task_begin(estimator=estimator, **self._data)

    @contextmanager
    def epoch(self):
        """An epoch: gives the `tick` that each of its steps calls, and sets `stopped`.

        A callback that returns True after a step ends the epoch, after an epoch the fit.
        """
        if self._root is None:
            yield None
            return
        every = -(-self._n_steps // MAX_TICKS)
        task = self._root.subcontext("epoch", max_subtasks=-(-self._n_steps // every))
        task.call_on_fit_task_begin(estimator=self._estimator, **self._data)
        steps, stop = 0, False

        def tick():
            nonlocal steps, stop
            with self._lock:  # steps end in several threads
                steps += 1
                if steps % every == 0 or steps == self._n_steps:
                    step = task.subcontext("steps")
                    step.call_on_fit_task_begin(estimator=self._estimator)
                    stop |= step.call_on_fit_task_end(estimator=self._estimator)
                return stop

        yield tick
        self.stopped = task.call_on_fit_task_end(
            estimator=self._estimator, **self._data, reconstruction_attributes=self._fitted
        )

    def end(self):
        """The fit is over, and the estimator has its fitted attributes."""
        if self._root is not None:
            self._root.call_on_fit_task_end(
                estimator=self._estimator, **self._data, reconstruction_attributes=dict
            )
