"""The training loop: batches of rows, a shortlist of labels for each, loss, and a step of Adagrad.

Threads train side by side on the same weights without locks, each on its own batches; one thread
gives the same bits at each run.
"""

import itertools
import math
from contextlib import nullcontext

import numpy as np

from skxmc._all_labels import Positives, train_on_all
from skxmc._ends import Rows, move
from skxmc._lazy import torch
from skxmc._mapped import MappedOrder
from skxmc._network import hidden_vectors
from skxmc._shortlist import MAX_POSITIVES, keep_hardest, make_shortlist
from skxmc._threads import blocks, for_each
from skxmc.samplers import FullSampler, Proposal

# The dense weights between the tables move in every step, a table row in few: at the rate of the
# tables they would run ahead of them (stackexchange4: P@1 53 instead of 61).
MIDDLE_RATE = 0.1

# On a GPU, whose host runs ahead of it: after how many steps it waits for their losses.
WAIT_AFTER = 100

# A mean loss of a label so large is no loss of a network that learns: its scores have exploded.
MOST = 1e6


class _Worker:
    """What one thread needs for itself: a view of the network, random numbers, scratch."""

    def __init__(self, network, n_labels, seed):
        self.network = network.replica()
        self.rng = np.random.default_rng(seed)
        self.slot = np.full(n_labels, -1, np.int32)
        self.squares = [torch.zeros_like(a) for a in self.network.parameters()]

    def step_middle(self, gradients, rate):
        """One step of Adagrad for the dense weights between the ends."""
        arrays = zip(self.network.parameters(), self.squares, gradients, strict=True)
        for weights, squares, gradient in arrays:
            self.network.ends.adagrad(weights, squares, gradient, rate)


def numbers(results):
    """What steps returned as Python's numbers: one wait for the device, and not one for each."""
    tensors = [a.double() for result in results for a in result if isinstance(a, torch.Tensor)]
    found = iter(torch.stack(tensors).tolist() if tensors else ())
    return [
        tuple(next(found) if isinstance(a, torch.Tensor) else a for a in result)
        for result in results
    ]


def trains_by_blocks(sampler, loss, divided):
    """Whether a step goes over blocks of all labels, and not over a shortlist.

    A subclass of the sampler may propose something else; a table that several processes share is
    divided.
    """
    return not divided and type(sampler) is FullSampler and loss.over_negatives is not None


class Trainer:
    """One run of training: everything that it needs lives here and dies with it.

    X : Rows or ndarray of shape (n, n_features). problem : Problem. sampler : made for this run,
    and begun on the problem.
    """

    def __init__(
        self, network, X, problem, sampler, loss, *,
        n_epochs, learning_rate, dropout, positive_weights=None, schedule="cooldown",
        passed_over=None, memory=None,
    ):  # fmt: skip
        self.network, self.X, self.Y = network, X, problem.Y
        self.sampler, self.loss = sampler, loss
        self.max_positives = loss.max_positives or MAX_POSITIVES
        self.by_blocks = trains_by_blocks(sampler, loss, network.divided)
        self.positive_weights = positive_weights  # (L,) float32 or None
        self.n_epochs, self.learning_rate, self.dropout = n_epochs, learning_rate, dropout
        self.schedule = schedule  # a name, or a factor for each epoch
        self.batch_size, self.n_threads = problem.batch_size, problem.n_threads
        self.visited = np.ones(problem.n_rows, bool)
        if passed_over is not None:  # rows that training never visits
            self.visited[passed_over] = False
        self.n_rows = int(self.visited.sum())
        self.n_steps = -(-self.n_rows // self.batch_size)  # in an epoch
        self.n_done = 0  # of the steps of the running epoch, or of the last
        seeds = np.random.SeedSequence(problem.random_state).spawn(self.n_threads + 1)
        self.rng = np.random.default_rng(seeds[0])
        network.prepare_training(self.rng)
        self.workers = [_Worker(network, problem.n_labels, seed) for seed in seeds[1:]]
        if memory is not None:
            self.recall(memory)

    def memory(self):
        """What Adagrad remembers: squares of feature rows, label rows, label biases, dense weights.

        Several threads remember the dense weights each for itself; here, as the first does.
        """
        tensors = [*self._table_squares(), *self.workers[0].squares]
        return [tensor.detach().cpu().numpy() for tensor in tensors]

    def recall(self, memory):
        """Take over such memory."""
        tables = self._table_squares()
        dense = memory[len(tables) :]  # for each worker to remember
        tensors = [*tables, *(squares for worker in self.workers for squares in worker.squares)]
        arrays = [*memory[: len(tables)], *dense * len(self.workers)]
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.copy_(torch.tensor(array))

    def _table_squares(self):
        features, labels = self.network.features, self.network.labels
        return [features.squares, labels.squares, labels.bias_squares]

    def get_state(self):
        """All that the next epoch depends on, for a checkpoint: arrays, Generators and the like."""
        return {
            "tensors": [tensor.detach().cpu().numpy() for tensor in self._tensors()],
            "squares": [[a.cpu().numpy() for a in worker.squares] for worker in self.workers],
            "rngs": [self.rng, *(worker.rng for worker in self.workers)],
            "sampler": self.sampler.get_state(),
        }

    def set_state(self, state):
        """Go on from such a state, by as many threads as there are now; ValueError if it misfits.

        Threads that it has not heard of remember of the dense weights what the first does.
        """
        tensors = self._tensors()
        arrays, squares, rngs = list(state["tensors"]), state["squares"], state["rngs"]
        for i, worker in enumerate(self.workers):
            tensors += worker.squares
            arrays += squares[i if i < len(squares) else 0]
        for tensor, array in zip(tensors, arrays, strict=True):
            if tuple(tensor.shape) != array.shape or array.dtype != np.float32:
                raise ValueError(
                    f"an array is {array.dtype} of shape {array.shape}, where this fit has float32 "
                    f"of {tuple(tensor.shape)}"
                )
            tensor.copy_(torch.from_numpy(array))
        for rng, stored in zip([self.rng, *(w.rng for w in self.workers)], rngs, strict=False):
            rng.bit_generator.state = stored.bit_generator.state
        self.sampler.set_state(state["sampler"])

    def _tensors(self):
        """What training moves, and its threads share."""
        net, out = self.network, []
        for table in (net.features, net.labels):
            out += [table.weights, table.biases, table.squares, table.bias_squares]
        if net.top_direction is not None:
            out.append(net.top_direction)
        return [*out, *net.parameters()]

    def epoch(self, number, tick=None, stop=None):
        """Visit every row once; returns the mean loss of a row, and two facts of the negatives.

        Hardness is the mean of a row's sum of their |d loss / d score|, which for the cross-entropy
        is the probability that the network gives them. The active share is of those with a
        gradient, which a hinge has only inside its margin; None for losses that always have one.
        `tick()` is called after each step, by any thread, and ends the epoch by returning True;
        `stop()` before each, and ends it too. ValueError if the loss explodes.
        """
        self.n_done = 0
        if stop is not None and stop():
            return math.nan, math.nan, None
        self.sampler.start_epoch(number, self.n_epochs)
        order = self.sampler.order_rows(number, self, self.rng)
        mapped, window = MappedOrder.of(self.X), None
        if order is None:
            order = mapped.draw(self.rng) if mapped else self.rng.permutation(len(self.visited))
        elif not np.array_equal(np.sort(order), np.arange(len(self.visited))):
            raise ValueError(f"order_rows of {self.sampler} must return each row once, or None.")
        elif mapped:  # rows from everywhere: a page of the disk holds more than one
            window = mapped.mixed // 8
        order = order[self.visited[order]]
        due = [s for s in range(self.n_steps) if self.sampler.due(number, s)]
        results, waiting, stopped = [], [], False
        runs_ahead = self.network.ends.runs_ahead

        def work(step):
            nonlocal stopped
            if stopped or (stop is not None and stop()):
                stopped = True
                return
            first = step * self.batch_size
            reach(first - begin * self.batch_size)
            rows = order[first : first + self.batch_size]
            worker = self.workers.pop()  # as many as threads
            result = self.step(worker, rows, number * self.n_steps + step)
            self.workers.append(worker)
            if not runs_ahead:
                take_in([result])
            else:  # its one thread
                waiting.append(result)
                if len(waiting) == WAIT_AFTER:
                    take_in(waiting)
            if not stopped and tick is not None and tick():
                stopped = True

        def take_in(new):
            nonlocal stopped
            found = numbers(new)
            results.extend(found)
            if not all(math.isfinite(loss) for _, loss, *_ in found):
                stopped = True  # no use to look up or cluster by NaN
            new.clear()

        for begin, end in itertools.pairwise(sorted({0, *due, self.n_steps})):
            if stopped:
                break
            if begin in due:
                self.sampler.refresh(number, begin, self, order[begin * self.batch_size :])
            part = order[begin * self.batch_size : end * self.batch_size]
            with mapped.reading(part, window) if mapped else nullcontext(int) as reach:
                for_each(work, range(begin, end), self.n_threads)
            take_in(waiting)
        self.n_done = len(results)
        if not results:  # an interrupt during the first look-up
            return math.nan, math.nan, None
        n_rows, loss, hardness, active, negatives = (
            sum(column) for column in zip(*results, strict=True)
        )
        if not loss <= MOST * (n_rows + negatives):
            raise ValueError(
                f"Training diverged in epoch {number + 1}: the mean loss of a row is "
                f"{loss / n_rows:.3g}. {self.remedy()}"
            )
        share = active / max(negatives, 1) if self.loss.reports_active else None
        return loss / n_rows, hardness / n_rows, share

    def remedy(self):
        """What helps against weights and losses that explode."""
        longest = 0.0
        for rows in blocks(len(self.visited), 4096):
            if isinstance(self.X, Rows):
                bounds = self.X.indptr[rows.start : rows.stop + 1]
                data = self.X.data[bounds[0] : bounds[-1]].astype(np.float64)
                row = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
                squares = np.bincount(row, data * data, len(bounds) - 1)
            else:
                squares = np.square(self.X[rows], dtype=np.float64).sum(1)
            longest = max(longest, float(np.sqrt(squares.max())))
        lower = f"Lower learning_rate_init={self.learning_rate}"
        if longest <= 10:
            return f"{lower}."
        return (
            f"{lower}, or make the rows of X shorter: the longest has length {longest:.3g}, and "
            "sklearn.preprocessing.normalize makes it 1."
        )

    def check_weights(self):
        """Raise where a weight is not finite: at the end of a run, since a step may spoil a few."""
        for tensor in self._tensors():
            for block in blocks(len(tensor), 4096):
                if not torch.isfinite(tensor[block]).all():
                    raise ValueError(f"Training diverged: a weight is not finite. {self.remedy()}")

    def step(self, worker, rows, number):
        """Train on one batch; returns the sums that an epoch's results are made of.

        Rows, loss, |d loss / d score| of the negatives, how many of them it is not 0 for, and how
        many there are.
        """
        rate = self.rate(number)
        rng = worker.rng
        proposals = [] if self.by_blocks else self.sampler.propose(rows, rng)
        proposals = [proposals] if isinstance(proposals, Proposal) else proposals
        shortlist = make_shortlist(
            self.Y, rows, proposals, rng, worker.slot, self.max_positives, self.positive_weights
        )

        net = worker.network.thinned(self.dropout, rng)
        inputs = net.embed(self.X, rows)  # (B, H0) of the units that take part
        hidden, back = net.forward(inputs)  # (B, H) of these
        learn = self._learn_all if self.by_blocks else self._learn
        *sums, gradient = learn(net, hidden, shortlist, rows, rate)  # gradient: (B, H)
        grad_inputs, *grads = back(gradient)
        net.update_features(self.X, rows, grad_inputs, rate)
        worker.step_middle(grads, MIDDLE_RATE * rate)
        return len(rows), *sums

    def _learn(self, net, hidden, shortlist, rows, rate):
        """Move the shortlist's labels; returns the sums of `step`, and d loss / d hidden."""
        with torch.no_grad():
            scores = net.scores(hidden, shortlist)  # (B, r + s)
            shortlist, scores = keep_hardest(shortlist, scores)
        weights = shortlist.weights
        if isinstance(weights, np.ndarray):
            weights = move(weights, net.device)
        targets = torch.zeros(scores.shape[1], dtype=torch.float32, device=net.device)
        targets[: shortlist.n_positives] = 1
        more = {}
        if self.loss.uses_log_expected:
            more["log_expected"] = move(np.nan_to_num(shortlist.log_expected), net.device)
        targets = targets.expand_as(scores)
        value, gradient = self.loss.value_and_gradient(scores, targets, weights, **more)
        hardness, active, n = net.ends.summarize(gradient, weights, shortlist.n_positives)
        active *= self.loss.reports_active
        return value, hardness, active, n, net.update_labels(hidden, gradient, shortlist, rate)

    def _learn_all(self, net, hidden, shortlist, rows, rate):
        """The same against all labels, where the shortlist holds the positives alone."""
        positives = Positives(self.Y, rows, net.device)
        value, hardness, active, back = train_on_all(
            net, hidden, shortlist, positives, self.loss, rate
        )
        return value, hardness, active, len(rows) * net.n_labels - positives.n, back

    def rate(self, number):
        """The learning rate of a step, counted from the start of the run."""
        if isinstance(self.schedule, str):
            left = 1 - number / (self.n_epochs * self.n_steps)
            factor = {"cooldown": min(1.0, 1.5 * left), "linear": left, "constant": 1.0}
            return self.learning_rate * factor[self.schedule]
        return self.learning_rate * float(self.schedule[number // self.n_steps])

    # -- what a sampler sees at a refresh --------------------------------------------------------

    def hidden(self, rows):
        """Hidden vectors of these rows without dropout, (len(rows), H)."""
        return hidden_vectors(self.network, self.X, rows, self.n_threads)

    def sketch(self, rows):
        """Hidden vectors of a few of the units, (len(rows), at most H): less work."""
        return hidden_vectors(self.network.sketch(), self.X, rows, self.n_threads)

    def share_index(self, index):
        """An index over `label_weights` as one over all labels: several processes may hold them."""
        return self.network.share_index(index)

    @property
    def label_weights(self):
        """(L, H)."""
        return self.network.labels.weights

    @property
    def label_biases(self):
        """(L,)."""
        return self.network.labels.biases
