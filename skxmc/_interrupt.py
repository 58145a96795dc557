"""A fit that ends early: Ctrl-C ends it in order, and an error leaves the estimator as it was."""

import functools
import signal
import threading

# What fit sets beside the attributes that end in an underscore.
_PRIVATE = ("_kind", "_memory", "_kept")


class FitInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a fit, and the estimator is fitted with what it had learnt."""


class Interrupt:
    """Ctrl-C, held back while a fit runs: `asked` says that it was pressed. A second is not held.

    Python delivers signals to the main thread alone, so that a fit in another is not concerned; and
    where somebody handles SIGINT already, that stays as it is.
    """

    def __init__(self, may_hold=True):
        self._may_hold = may_hold
        self.asked = self.holds = False
        self.how = None  # where it cut the fit short, and what it is left with; None: it did not

    def stop(self):
        """Whether the fit is to end."""
        return self.asked

    def __enter__(self):
        self.holds = (
            self._may_hold
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.holds:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def _hear(self, signum, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True

    def __exit__(self, *error):
        if self.holds:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(self, saved=None):
        """Let it through, now that the estimator is fitted. `saved`: the checkpoint, if any."""
        if not self.asked:
            return
        if self.how is None:
            raise FitInterrupted("Interrupted as the fit ended: the estimator is fitted in full.")
        more = f" Call fit again to go on from {saved.path}." if saved and saved.epoch else ""
        raise FitInterrupted(f"The fit was interrupted {self.how}. The estimator is fitted.{more}")


def all_or_nothing(method):
    """A fit that restores the attributes of the fit before, or their absence, if it fails."""

    def fitted(estimator):
        return {
            name: value
            for name, value in vars(estimator).items()
            if name in _PRIVATE or (name.endswith("_") and not name.startswith("_"))
        }

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        before = fitted(self)
        try:
            return method(self, *args, **kwargs)
        except FitInterrupted:
            raise
        except BaseException:
            for name in fitted(self):
                delattr(self, name)
            vars(self).update(before)
            raise

    return wrapper
