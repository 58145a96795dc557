"""`make_xmc`: a synthetic extreme multi-label problem with the traits of tagged text.

Labels live in topics and are long-tailed. A row draws its labels, most of them from one topic,
then its words: some of its labels' own words, some of its topics', most from a background
vocabulary that follows Zipf's law. Labels of a topic share words, so they are hard to tell apart.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.utils import check_random_state

__all__ = ["make_xmc"]

_SAME_TOPIC = 0.8  # share of a row's further labels that come from its first label's topic
_WORDS_PER_LABEL = 4  # as many as the words of a tag and its synonyms
_POOL_PER_LABEL = 2  # words of a topic for each of its labels: 4 / 2, so two labels share a word
_POOL_BASE = 10  # words of a topic beside these, so that a topic of one label has some of its own
_ABOUT_LABELS = 0.5  # of the words that are not noise: the labels' own; the others are the topic's
_FREQUENCY_JITTER = 0.5  # log-scale noise on label frequencies: real ones are no clean power law
_BLOCK_WORDS = 1 << 21  # words drawn at a time: bounds the memory, about 150 MB


def make_xmc(
    n_samples: int = 10_000,
    n_features: int = 20_000,
    n_labels: int = 2_000,
    *,
    n_labels_per_sample: float = 3.0,
    n_features_per_sample: float = 50,
    n_topics: int | None = None,
    label_skew: float = 1.0,
    noise: float = 0.8,
    missing_labels: float = 0.0,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[sp.csr_array, sp.csr_array]:
    """Make an extreme multi-label problem that looks like tagged text.

    With the default values a good linear model reaches a precision@1 of about 70 %, and is much
    better on frequent labels than on rare ones, of which there are many. Split the result with
    :func:`sklearn.model_selection.train_test_split`; as in real data, some labels will then have
    rows in the test part only.

    Parameters
    ----------
    n_samples : int, default=10_000
        Number of rows.
    n_features : int, default=20_000
        Number of features, the words of the vocabulary.
    n_labels : int, default=2_000
        Number of labels.
    n_labels_per_sample : float, default=3.0
        Average number of labels of a row. Rows have at least one where this is 1 or more;
        below 1 it is the share of rows that have a label.
    n_features_per_sample : float, default=50
        Average number of words of a row, at least 1. A word drawn twice counts twice but is
        stored once, so `X` stores somewhat fewer.
    n_topics : int, default=None
        Number of groups of labels that occur together and share words. None takes the square
        root of `n_labels`. Fewer topics mean more look-alikes for each label.
    label_skew : float, default=1.0
        Exponent of the long tail: the label at frequency rank `r` is drawn about as often as
        ``(r + sqrt(n_labels) / 4) ** -label_skew``. 0 makes all labels about equally frequent.
    noise : float, default=0.8
        Share of words that have nothing to do with the row's labels, between 0 and 1.
    missing_labels : float, default=0.0
        Share of labels that the text speaks of and `Y` lacks, between 0 and 1. Rare labels are
        missing more often, in the proportions of the propensity model of [1]_. Rows may lose
        all their labels.
    random_state : int, RandomState instance or None, default=None
        Seed. An int gives the same data at each call and leaves NumPy's global random state
        alone; None draws from that global state, as everywhere in scikit-learn.

    Returns
    -------
    X : csr_array of shape (n_samples, n_features), dtype float32
        TF-IDF rows of unit length.
    Y : csr_array of shape (n_samples, n_labels), dtype float32
        Binary indicators: row `i` has label `j` where ``Y[i, j] == 1``.

    Raises
    ------
    TypeError
        If a count is not a whole number, or another parameter not a number.
    ValueError
        If a parameter is out of its range.

    See Also
    --------
    load_xmc_file : Read a real problem from the Extreme Classification Repository.

    References
    ----------
    .. [1] H. Jain, Y. Prabhu, M. Varma, "Extreme Multi-label Loss Functions for Recommendation,
       Tagging, Ranking & Other Missing Label Applications", KDD 2016.

    Examples
    --------
    >>> from skxmc.datasets import make_xmc
    >>> X, Y = make_xmc(n_samples=500, n_features=1000, n_labels=100, random_state=0)
    >>> X.shape, Y.shape
    ((500, 1000), (500, 100))
    """
    _check_count("n_samples", n_samples)
    _check_count("n_features", n_features)
    _check_count("n_labels", n_labels)
    n_topics = max(1, round(n_labels**0.5)) if n_topics is None else n_topics
    _check_count("n_topics", n_topics, n_labels, "n_labels")
    _check_number("n_labels_per_sample", n_labels_per_sample, 0, n_labels, "n_labels")
    _check_number("n_features_per_sample", n_features_per_sample, 1)
    _check_number("label_skew", label_skew, 0)
    _check_number("noise", noise, 0, 1)
    _check_number("missing_labels", missing_labels, 0, 1)
    random = check_random_state(random_state)

    # Labels are numbered by topic in here, which makes a topic a range; `names` mixes them.
    topic_of = np.sort(random.randint(n_topics, size=n_labels))  # (n_labels,)
    topic_start = np.searchsorted(topic_of, np.arange(n_topics + 1))  # (n_topics + 1,)
    names = random.permutation(n_labels)
    frequencies = _label_frequencies(n_labels, label_skew, random)
    rows, labels = _draw_labels(
        n_samples, n_labels_per_sample, frequencies, topic_of, topic_start, random
    )
    words_of = _Words(n_features, topic_of, topic_start, random)
    X = _draw_text(rows, labels, words_of, n_samples, n_features_per_sample, noise, random)

    seen = _observed(labels, n_labels, missing_labels, random)
    # csr_array keeps the index type that it is given, and scikit-learn's solvers want int32.
    where = (rows[seen].astype(np.int32), names[labels[seen]].astype(np.int32))
    ones = np.ones(len(where[0]), dtype=np.float32)
    return X, sp.csr_array((ones, where), shape=(n_samples, n_labels))


def _label_frequencies(n_labels, label_skew, random):
    """Zipf's law, flat at the head as in real label sets; sums to 1."""
    ranks = random.permutation(n_labels) + max(1.0, n_labels**0.5 / 4)
    logs = -label_skew * np.log(ranks)
    if label_skew > 0:
        logs += _FREQUENCY_JITTER * random.standard_normal(n_labels)
    frequencies = np.exp(logs - logs.max())
    return frequencies / frequencies.sum()


def _draw_counts(mean, shape, size, random):
    """Whole numbers from 1 on with this mean: a Poisson count whose rate varies by row."""
    if mean < 1:
        return (random.random_sample(size) < mean).astype(np.int64)
    return 1 + random.poisson(random.gamma(shape, (mean - 1) / shape, size))


def _draw_labels(n_samples, mean, frequencies, topic_of, topic_start, random):
    """Distinct labels of each row as (rows, labels); a row's first sets its topic."""
    n_labels = len(frequencies)
    counts = np.minimum(_draw_counts(mean, 2.0, n_samples, random), n_labels)
    rows = np.repeat(np.arange(n_samples), counts)  # (pairs,)
    cumulative = np.append(0.0, np.cumsum(frequencies))
    labels = _pick(cumulative, random.random_sample(len(rows)))
    starts = np.cumsum(counts) - counts  # (n_samples,) where a row's first label stands
    topics = topic_of[labels[np.repeat(starts, counts)]]  # (pairs,) of the first label
    redraw = np.ones(len(rows), dtype=bool)
    redraw[starts[counts > 0]] = False
    for _ in range(4):  # a label drawn twice is drawn again; what is left then is dropped
        where = np.flatnonzero(redraw)
        low = cumulative[topic_start[topics[where]]]
        high = cumulative[topic_start[topics[where] + 1]]
        together = random.random_sample(len(where)) < _SAME_TOPIC
        position = random.random_sample(len(where))
        position = np.where(together, low + position * (high - low), position)
        labels[where] = _pick(cumulative, position)
        redraw[:] = True
        redraw[np.unique(rows * n_labels + labels, return_index=True)[1]] = False
        if not redraw.any():
            break
    return rows[~redraw], labels[~redraw]


def _pick(cumulative, position):
    """Find the label in whose stretch of the line from 0 to 1 each position falls."""
    found = np.searchsorted(cumulative, position, side="right") - 1
    return np.minimum(found, len(cumulative) - 2)  # rounding may leave the line's end below 1


class _Words:
    """The vocabulary: what a label, a topic and nobody in particular says."""

    def __init__(self, n_features, topic_of, topic_start, random):
        self.by_rank = random.permutation(n_features).astype(np.int32)  # the commonest first
        self.topic_of = topic_of
        self.pool_size = _POOL_BASE + _POOL_PER_LABEL * np.diff(topic_start)  # (n_topics,)
        self.pool_start = np.cumsum(self.pool_size) - self.pool_size  # (n_topics,)
        self.pool = random.randint(n_features, size=self.pool_size.sum(), dtype=np.int32)
        # A label's words are some of its topic's: that is what makes look-alikes.
        position = random.random_sample((len(topic_of), _WORDS_PER_LABEL))
        place = (position * self.pool_size[topic_of, None]).astype(np.int64)
        self.of_label = self.pool[self.pool_start[topic_of, None] + place]  # (n_labels, 4)

    def background(self, size, random):
        """Words by Zipf's law with exponent 1, by its inverse in place of a table."""
        shift, n_features = 2.7, len(self.by_rank)
        span = np.log1p(n_features / shift)
        ranks = shift * np.expm1(random.random_sample(size) * span)
        return self.by_rank[np.minimum(ranks.astype(np.int64), n_features - 1)]

    def about(self, labels, random):
        """One word for each of these labels: its own, or its topic's."""
        own = self.of_label[labels, random.randint(_WORDS_PER_LABEL, size=len(labels))]
        topics = self.topic_of[labels]
        position = random.random_sample(len(labels)) ** 2  # some words are typical of a topic
        place = (position * self.pool_size[topics]).astype(np.int64)
        shared = self.pool[self.pool_start[topics] + place]
        return np.where(random.random_sample(len(labels)) < _ABOUT_LABELS, own, shared)


def _draw_text(rows, labels, words_of, n_samples, mean, noise, random):
    """TF-IDF rows of what each row says."""
    lengths = _draw_counts(mean, 4.0, n_samples, random)
    ends = np.cumsum(lengths)
    label_counts = np.bincount(rows, minlength=n_samples)
    label_starts = np.cumsum(label_counts) - label_counts
    blocks, start = [], 0
    while start < n_samples:
        limit = ends[start] - lengths[start] + _BLOCK_WORDS
        stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
        row = np.repeat(np.arange(start, stop), lengths[start:stop])  # (words,)
        words = words_of.background(len(row), random)
        spoken = (random.random_sample(len(row)) >= noise) & (label_counts[row] > 0)
        row = row[spoken]
        # Squared: a row speaks more of its first labels, and the last ones are hard to find.
        place = (random.random_sample(len(row)) ** 2 * label_counts[row]).astype(np.int64)
        words[spoken] = words_of.about(labels[label_starts[row] + place], random)
        pointers = np.append(0, np.cumsum(lengths[start:stop])).astype(np.int32)  # (rows + 1,)
        block = sp.csr_array(
            (np.ones(len(words), np.float32), words, pointers),
            shape=(stop - start, len(words_of.by_rank)),
        )
        block.sum_duplicates()
        blocks.append(block)
        start = stop
    counts = sp.vstack(blocks, format="csr")
    del blocks
    return sp.csr_array(TfidfTransformer().fit(counts).transform(counts, copy=False))


def _observed(labels, n_labels, missing_labels, random):
    """Which labels stay: a rare one goes missing more often, with propensity (N + B) ** A."""
    if missing_labels == 0:
        return np.ones(len(labels), dtype=bool)
    counts = np.bincount(labels, minlength=n_labels)
    odds = ((counts + 1.5) ** -0.55)[labels]  # (pairs,)
    chance = np.minimum(1.0, missing_labels * odds / odds.mean()) if len(odds) else odds
    if missing_labels == 1:
        chance[:] = 1.0
    return random.random_sample(len(labels)) >= chance


def _check_count(name, value, most=2**31 - 1, most_name=None):
    """Refuse what is not a whole number from 1 to `most`."""
    if not isinstance(value, Integral) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, got {value!r}; pass an int.")
    _check_number(name, value, 1, most, most_name)


def _check_number(name, value, least, most=np.inf, most_name=None):
    """Refuse what is not a finite number from `least` to `most`."""
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r}; pass an int or a float.")
    if not (least <= value <= most and np.isfinite(value)):
        upper = most if most_name is None else f"{most_name}={most}"
        bounds = f"{least} or more" if most == np.inf else f"between {least} and {upper}"
        raise ValueError(f"{name}={value!r} is out of range; pass a value {bounds}.")
