"""Members: networks of one shape trained side by side, which together are one wide network."""

from dataclasses import replace

import numpy as np
from sklearn.base import clone

from skxmc._centroids import label_centroids, unit_rows
from skxmc._device_memory import Need
from skxmc._ends import FIRST_SQUARES, Rows
from skxmc._network import Network, Weights
from skxmc._predictor import Predictor
from skxmc._targets import count_labels, pace
from skxmc._threads import apart, blocks, for_each
from skxmc._training import Trainer, trains_by_blocks
from skxmc.samplers import FullSampler, Problem


def spread(array, seen, n_labels, fill):
    """With a row for each label: the array's for the labels seen; None and all stay as they are."""
    if array is None or len(array) == n_labels:
        return array
    out = np.full((n_labels, *array.shape[1:]), fill, np.float32)
    out[seen] = array
    return out


class MemberTables:
    """The tables of all members in one piece of memory, which are one wide table in the end.

    Each member trains a table (n_rows, width) of its own; to put them side by side, their rows
    change places within the memory, so that no second table is needed. There is room for `n_final`
    rows at last.
    """

    def __init__(self, n_members, n_rows, width, n_final=None):
        self._memory = np.empty((n_members * (n_final or n_rows), width), np.float32)
        self.members = self._memory[: n_members * n_rows].reshape(n_members, n_rows, width)

    def merge(self, at=None):
        """The wide table, (n_final, n_members * width), rows at these places, ascending, or at all.

        The others are zeros. The members' tables are no more.
        """
        from skxmc._kernels import interleave

        n_members, n_rows, width = self.members.shape
        interleave(self.members.reshape(-1, width), n_members)
        out = self._memory.reshape(-1, n_members * width)
        if len(out) > n_rows:
            for block in reversed(blocks(n_rows, 4096)):  # no row before those after it
                out[at[block]] = out[block].copy()
            rest = np.ones(len(out), bool)
            rest[at] = False
            out[rest] = 0
        return out


class Whole:
    """Where the tables of a run lie: here, as a whole. n_final: labels of the fitted model."""

    divided = False

    def __init__(self, n_features, n_labels, n_final):
        self.n_features, self.n_labels, self.n_final = n_features, n_labels, n_final
        self.n_columns = n_final  # of the user's y

    def initial(self, n_features, sizes, log_odds, rng, residual, features, labels):
        """The weights of a member at its start, in its tables."""
        return Weights.initial(n_features, sizes, log_odds, rng, residual, features, labels)

    def network(self, weights, device, compute_dtype="float32"):
        """The network that such weights make."""
        return Network(weights, device, compute_dtype)

    def ensemble(self, trainers, *args):
        """Who runs the trainers."""
        return Ensemble(trainers, self, *args)


class Ensemble:
    """Trainers of the members, an epoch at a time; at the end, their average, by `finish`.

    Members share the data and nothing else. With as many threads as members or fewer, each is
    trained by one thread, and the same seed gives the same bits.
    """

    def __init__(self, trainers, place, n_threads, device, features=None, labels=None, need=None):
        self.trainers, self.n_threads, self.device = trainers, n_threads, device
        self.place, self.need = place, need  # where the tables lie, what a device holds of them
        self.features, self.labels = features, labels  # `MemberTables`, where they are to merge
        self.Y, self.n_rows = trainers[0].Y, len(trainers[0].visited)
        self.reports_active = trainers[0].loss.reports_active
        self.shortlist_size = trainers[0].sampler.shortlist_size

    @property
    def n_steps(self):
        """Steps of all members in an epoch."""
        return sum(trainer.n_steps for trainer in self.trainers)

    @property
    def n_done(self):
        """How many of them the last epoch has done, which may have been stopped."""
        return sum(trainer.n_done for trainer in self.trainers)

    @property
    def n_bytes(self):
        """Memory of the weights that are large."""
        return self.features.members.nbytes + self.labels.members.nbytes

    def epoch(self, number, tick=None, stop=None):
        """Visit every row once; returns the members' mean of what `Trainer.epoch` returns."""
        with self.need.explaining():
            return self._epoch(number, tick, stop)

    def _epoch(self, number, tick, stop):
        if len(self.trainers) == 1:
            return self.trainers[0].epoch(number, tick, stop)
        results = {}

        def work(m):
            results[m] = self.trainers[m].epoch(number, tick, stop)

        members = range(len(self.trainers))
        self._for_each(work, members)
        losses, hardness, active = zip(*(results[m] for m in members), strict=True)
        share = None if None in active else float(np.mean(active))
        return float(np.mean(losses)), float(np.mean(hardness)), share

    def _for_each(self, work, members):
        for_each(work, members, min(self.n_threads, len(members)))

    def finish(self, seen):
        """The members as one network, in the memory of their tables: training is over.

        `seen`: to which rows of the label table the labels trained belong.
        """
        members = []
        for m, trainer in enumerate(self.trainers):
            weights = trainer.network.weights()
            tables = self.features.members[m], self.labels.members[m]
            if not np.may_share_memory(weights.features, tables[0]):  # of a GPU, or a checkpoint
                tables[0][:], tables[1][:] = weights.features, weights.labels
            members.append(replace(weights, features=tables[0], labels=tables[1]))
            trainer.network, trainer.workers = None, []
        return Weights.merge(members, self.features.merge(), self.labels.merge(seen))

    def memory(self, seen, n_labels):
        """What Adagrad remembers, each array (n_members, ...), with entries for all labels."""

        def for_all(features, labels, biases, *dense):
            every = [spread(array, seen, n_labels, FIRST_SQUARES) for array in (labels, biases)]
            return [features, *every, *dense]

        parts = [for_all(*trainer.memory()) for trainer in self.trainers]
        return [np.stack(arrays) for arrays in zip(*parts, strict=True)]

    def network(self):
        """The members as one network; a copy where there are several."""
        weights = [trainer.network.weights() for trainer in self.trainers]
        return self.place.network(Weights.merge(weights), self.device)

    def get_state(self):
        """What the next epoch depends on, of each member: see `Trainer.get_state`."""
        return [trainer.get_state() for trainer in self.trainers]

    def set_state(self, states):
        """Go on from such states, which may come one by one."""
        for trainer, state in zip(self.trainers, states, strict=True):
            trainer.set_state(state)

    def check_weights(self):
        """ValueError where a weight is not finite."""
        apart(lambda: [trainer.check_weights() for trainer in self.trainers])

    def checkpoint(self, older=None):
        """A copy of the members' weights, and of what their Adagrad remembers.

        `older`: a copy that is wanted no more, whose memory becomes this one's.
        """
        out = older or [None] * len(self.trainers)

        def copy(m):
            weights, memory = self.trainers[m].network.weights(), self.trainers[m].memory()
            if older is None:
                out[m] = weights.copy(), [a.copy() for a in memory]
                return
            arrays = [*older[m][0].arrays(), *older[m][1]]
            for array, now in zip(arrays, [*weights.arrays(), *memory], strict=True):
                array[...] = now

        self._for_each(copy, range(len(self.trainers)))
        return out

    def restore(self, checkpoint):
        """Take back such a copy."""
        for trainer, (weights, memory) in zip(self.trainers, checkpoint, strict=True):
            dtype = trainer.network.compute_dtype
            trainer.network = self.place.network(weights, self.device, dtype)
            trainer.network.prepare_training(trainer.rng)
            trainer.recall(memory)

    def go_back(self, epoch, best, last, saved):
        """From an epoch cut short to a complete one, if it is at hand; returns to which.

        best, last : what `checkpoint` returned, or None. saved : the checkpoint file, or None.
        """
        if best is not None:
            self.restore(best)
            return "and goes back to its best epoch"
        if last is not None:
            self.restore(last)
        elif saved is not None and saved.epoch == epoch:
            with saved.naming():
                self.set_state(saved.load()["members"])
        else:
            return f"and keeps {self.n_done / self.n_steps:.0%} of that epoch beside those before"
        return f"and goes back to the end of epoch {epoch}"

    def embeddings(self):
        """Unit label embeddings (L, H): each member's sampler places its own centroids."""
        parts = []
        for trainer in self.trainers:
            centroids = label_centroids(trainer, self.Y, self.Y.shape[1])
            parts.append(unit_rows(trainer.sampler.embed_labels(centroids)))
        return unit_rows(np.concatenate(parts, axis=1))

    def predictor(self, members=slice(None)):
        """What would predict if training stopped now, by some of the members or by all."""
        part = self.place.ensemble(self.trainers[members], self.n_threads, self.device)
        embeddings = None if self.shortlist_size is None else part.embeddings()
        seen = np.ones(self.Y.shape[1], bool)
        return Predictor(part.network(), seen, self.n_threads, embeddings, self.shortlist_size)


def begin(
    X, Y, counts, n_rows, place, *, sizes, residual, sampler, loss, n_members, batch_size,
    device, n_threads, seed, passed_over, log, start=None, compute_dtype="float32",
    predicts=False, **training,
):  # fmt: skip
    """All that a run needs; the sampler finds what is wrong with its parameters first.

    X : Rows or dense. Y : csr_array (n, L). counts : (L,), how many of `n_rows` rows carry each
    label: those of Y, and of what was trained before. place : `Whole`, or the like.
    passed_over : for each member, rows that it does not visit. start : for each member, what it
    goes on from: `Weights`, memory of Adagrad, and which labels they know, (L,) bool.
    predicts : whether held-out rows are predicted before training is over.
    training : further parameters of `Trainer`.
    """
    seeds = [seed, *np.random.SeedSequence(seed).generate_state(n_members - 1).tolist()]
    in_Y = count_labels(Y)
    batch_size = batch_size or pace(in_Y, Y.shape[0])[1]
    Y = Rows.of(Y, values=False)
    problems = [
        Problem(
            Y=Y,
            label_counts=in_Y,
            n_columns=place.n_columns,
            batch_size=batch_size,
            random_state=member_seed,
            n_threads=max(1, n_threads // n_members),
            log=log if m == 0 else _no_log,
        )
        for m, member_seed in enumerate(seeds)
    ]
    begun = [
        (clone(sampler, safe=False).begin(problem), clone(loss, safe=False).begin(problem))
        for problem in problems
    ]
    log_odds = np.log((counts + 0.5) / (n_rows - counts + 0.5))
    first, (its_sampler, its_loss) = problems[0], begun[0]
    need = Need(
        device, place.n_features, place.n_labels, sizes, n_members, first.batch_size,
        n_entries=-(-len(X.data) // X.shape[0]) if isinstance(X, Rows) else X.shape[1],
        dense=not isinstance(X, Rows), all_labels=isinstance(its_sampler, FullSampler),
        by_blocks=trains_by_blocks(its_sampler, its_loss, place.divided),
        predicts=predicts,
    )  # fmt: skip
    need.check()
    features = MemberTables(n_members, place.n_features, sizes[0])
    labels = MemberTables(n_members, place.n_labels, sizes[-1], place.n_final)
    weights = [None] * n_members

    def draw(m):
        tables = features.members[m], labels.members[m]
        if start is None:
            rng = np.random.default_rng(problems[m].random_state)
            weights[m] = place.initial(X.shape[1], sizes, log_odds, rng, residual, *tables)
        else:
            before, _, known = start[m]
            weights[m] = Weights.going_on(before, known, log_odds, *tables)

    for_each(draw, range(n_members), min(n_threads, n_members))
    with need.explaining():
        trainers = [
            Trainer(
                place.network(weights[m], device, compute_dtype), X, problems[m], *begun[m],
                passed_over=passed_over[m], memory=start and start[m][1], **training,
            )
            for m in range(n_members)
        ]  # fmt: skip
    return place.ensemble(trainers, n_threads, device, features, labels, need)


def _no_log(text):
    """What members beside the first say."""
