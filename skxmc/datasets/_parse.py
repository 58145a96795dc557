"""The compiled loops of the text format: bytes to sparse rows, and sparse rows to bytes.

Imported by `_files` when a file is read or written, since it brings in numba. Decimal numbers go
through products of two doubles each (about 32 digits): a number of up to 19 digits is read as the
nearest double, one of more as that or its neighbour, and the digits written are the nearest ones.
"""

from fractions import Fraction

import numpy as np
from numba import njit

# What `parse_rows` found wrong; `_files` says it in words.
FINE, BAD_LABEL, BAD_FEATURE, NO_COLON, BAD_VALUE, BIG_VALUE = range(6)
LABEL_RANGE, FEATURE_RANGE, TWICE, TOO_MANY = range(6, 10)

_TEN = 290  # powers of ten up to this one leave both parts of a product normal doubles
_SHIFT = 2.0**200
_exact = [Fraction(10) ** k for k in range(-_TEN, _TEN + 1)]
_HIGH = np.array([float(power) for power in _exact])  # (581,) 10 ** k, k from -290 to 290
_LOW = np.array([float(power - Fraction(float(power))) for power in _exact])  # what _HIGH lacks
del _exact

_MOST = np.int64((2**63 - 10) // 10)  # an index above this has no room for another digit
_TAB, _NEWLINE, _RETURN, _BLANK, _HASH = 9, 10, 13, 32, 35
_PLUS, _COMMA, _MINUS, _DOT, _ZERO, _COLON, _E = 43, 44, 45, 46, 48, 58, 101
_LEAST_EXPONENT = -5  # numbers below 1e-4 are written with an exponent, as %g does


@njit(cache=True, nogil=True)
def _times_table(high, low, power):
    """(high + low) * 10 ** power, a power of the table, as a double and what it lacks."""
    ten, rest = _HIGH[power + _TEN], _LOW[power + _TEN]
    product = high * ten
    # Dekker's split: halves of 26 bits, whose products are exact.
    part = 134217729.0 * high
    high_1 = part - (part - high)
    high_2 = high - high_1
    part = 134217729.0 * ten
    ten_1 = part - (part - ten)
    ten_2 = ten - ten_1
    error = ((high_1 * ten_1 - product) + high_1 * ten_2 + high_2 * ten_1) + high_2 * ten_2
    error += high * rest + low * ten
    total = product + error
    return total, error - (total - product)


@njit(cache=True, nogil=True)
def _times_power(high, low, power):
    """(high + low) * 10 ** power, for any double and power, as a double and what it lacks."""
    shift = 1.0  # a power of two, hence exact, that keeps all steps away from both ends
    if high > 1e100 or (power > 100 and high > 1e-100):
        shift = _SHIFT
    elif high < 1e-100 or power < -100:
        shift = 1 / _SHIFT
    high, low = high / shift, low / shift
    if abs(power) > _TEN:
        step = _TEN if power > 0 else -_TEN
        high, low = _times_table(high, low, step)
        power -= step
    high, low = _times_table(high, low, power)
    return high * shift, low * shift


@njit(cache=True, nogil=True)
def _to_float(mantissa, power):
    """Find the double nearest to mantissa * 10 ** power; the mantissa is a uint64, 19 digits."""
    high = np.float64(mantissa)
    if mantissa == 0 or power == 0:
        return high
    if high < 9007199254740992.0 and -22 <= power <= 22:  # both exact: one rounding
        return high / _HIGH[_TEN - power] if power < 0 else high * _HIGH[_TEN + power]
    if power < -345:
        return 0.0
    if power > 310:
        return np.inf
    low = np.float64(np.int64(mantissa - np.uint64(high)))
    return _times_power(high, low, power)[0]


@njit(cache=True, nogil=True)
def _read_number(text, at):
    """Decimal number at `at` as (value, end); end is -1 where there is none."""
    negative = text[at] == _MINUS
    if negative or text[at] == _PLUS:
        at += 1
    mantissa, power, digits, start = np.uint64(0), 0, 0, at
    while _ZERO <= text[at] <= _ZERO + 9:
        if digits < 19:
            mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
            digits += mantissa > np.uint64(0)
        else:  # beyond what a double can tell
            power += 1
        at += 1
    n_digits = at - start
    if text[at] == _DOT:
        at += 1
        start = at
        while _ZERO <= text[at] <= _ZERO + 9:
            if digits < 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
                digits += mantissa > np.uint64(0)
                power -= 1
            at += 1
        n_digits += at - start
    if n_digits == 0:
        return 0.0, -1
    if text[at] | 32 == _E:
        at += 1
        below = text[at] == _MINUS
        if below or text[at] == _PLUS:
            at += 1
        exponent, start = 0, at
        while _ZERO <= text[at] <= _ZERO + 9:
            exponent = min(exponent * 10 + np.int64(text[at] - _ZERO), 1_000_000_000)
            at += 1
        if at == start:
            return 0.0, -1
        power += -exponent if below else exponent
    value = _to_float(mantissa, power)
    return (-value if negative else value), at


@njit(cache=True, nogil=True)
def _read_index(text, at):
    """Whole number at `at` as (value, end); value is -1 where there is none, -2 beyond int64."""
    start, value = at, np.int64(0)
    while _ZERO <= text[at] <= _ZERO + 9:
        if value > _MOST:
            return np.int64(-2), at
        value = value * 10 + np.int64(text[at] - _ZERO)
        at += 1
    return (value if at > start else np.int64(-1)), at


@njit(cache=True, nogil=True)
def _ends_token(text, at, comments):
    """Whether a token may end before `at`: at a blank, a line's end or a comment."""
    byte = text[at]
    if byte == _RETURN:
        return text[at + 1] == _NEWLINE
    return byte in (_BLANK, _NEWLINE, _TAB) or (comments and byte == _HASH)


@njit(cache=True, nogil=True)
def _skip_blanks(text, at):
    """Find the next position that is not a blank; a carriage return counts before a newline."""
    while (
        text[at] == _BLANK or text[at] == _TAB or (text[at] == _RETURN and text[at + 1] == _NEWLINE)
    ):
        at += 1
    return at


@njit(cache=True, nogil=True)
def _read_labels(text, at, comments, n_labels, labels, count):
    """Labels `l1,l2,l3` at `at` as (end, new count, code); no labels where a feature stands."""
    first = at
    while True:
        value, end = _read_index(text, at)
        if value == -2:
            return at, count, LABEL_RANGE
        if value == -1:
            return at, count, BAD_LABEL
        if at == first and text[end] == _COLON:
            return at, count, FINE
        if value >= n_labels:
            return at, count, LABEL_RANGE
        if text[end] != _COMMA and not _ends_token(text, end, comments):
            return at, count, BAD_LABEL
        labels[count] = value
        count += 1
        if text[end] != _COMMA:
            return end, count, FINE
        at = end + 1


@njit(cache=True, nogil=True)
def _read_features(text, at, comments, n_features, base, features, values, count):
    """Pairs `f:v` to the line's end as (end, new count, code); zeros are read and not kept."""
    while True:
        at = _skip_blanks(text, at)
        if text[at] == _NEWLINE or (comments and text[at] == _HASH):
            return at, count, FINE
        index, end = _read_index(text, at)
        if index == -2:
            return at, count, FEATURE_RANGE
        if index == -1:
            return at, count, BAD_FEATURE
        if text[end] != _COLON:
            return at, count, NO_COLON if _ends_token(text, end, comments) else BAD_FEATURE
        if not base <= index < n_features + base:
            return at, count, FEATURE_RANGE
        value, end = _read_number(text, end + 1)
        if end < 0 or not _ends_token(text, end, comments):
            return at, count, BAD_VALUE
        values[count] = value
        if not np.isfinite(values[count]):
            return at, count, BIG_VALUE
        features[count] = index - base
        count += 1
        at = end


@njit(cache=True, nogil=True)
def _sort(keys, values, start, stop):
    """Sort a row by its keys, where it is not in order; whether each key comes only once.

    Shell's sort: nearly all rows come in order, and NumPy's sorts take seconds to compile.
    """
    gap = 1
    while gap < (stop - start) // 3:
        gap = 3 * gap + 1
    for k in range(start + 1, stop):
        if keys[k] <= keys[k - 1]:
            break
    else:
        return True
    while gap > 0:
        for k in range(start + gap, stop):
            key, value, place = keys[k], values[k], k
            while place - gap >= start and keys[place - gap] > key:
                keys[place], values[place] = keys[place - gap], values[place - gap]
                place -= gap
            keys[place], values[place] = key, value
        gap //= 3
    for k in range(start + 1, stop):  # noqa: SIM110
        if keys[k] == keys[k - 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _drop_repeats(labels, start, stop):
    """Name each of a row's sorted labels once; the new end."""
    end = start + 1
    for k in range(start + 1, stop):
        if labels[k] != labels[end - 1]:
            labels[end] = labels[k]
            end += 1
    return end


@njit(cache=True, nogil=True)
def _drop_zeros(features, values, start, stop):
    """Close the gaps that zeros leave; the new end."""
    end = start
    for k in range(start, stop):
        if values[k] != 0:
            features[end] = features[k]
            values[end] = values[k]
            end += 1
    return end


@njit(cache=True, nogil=True)
def parse_rows(
    text, stop, strict, n_rows, n_labels, n_features, base, state, indices, values, ends
):
    """Parse the whole lines of ``text[:stop]``; (code, position of the fault).

    `strict` is the repository's format: a line is a row, empty or not, a leading blank means no
    labels, and there are no comments. `indices` is the pair (labels, features) of index arrays and
    `ends` the pair of row ends in them. `state` counts on from block to block: lines read, rows
    read, least and largest feature index, line of the latter, largest label; then the rows,
    labels and features that this block gave.
    """
    labels, features = indices
    label_ends, feature_ends = ends
    at, row, n_label, n_feature, comments = 0, 0, 0, 0, not strict
    while at < stop:
        state[0] += 1
        led_by_blank = text[at] == _BLANK or text[at] == _TAB
        at = _skip_blanks(text, at)
        if text[at] == _NEWLINE and (comments or state[1] >= n_rows):
            at += 1
            continue
        if comments and text[at] == _HASH:
            while text[at] != _NEWLINE:
                at += 1
            at += 1
            continue
        if state[1] >= n_rows:
            return TOO_MANY, at
        start = n_label
        if text[at] != _NEWLINE and not (strict and led_by_blank):
            at, n_label, code = _read_labels(text, at, comments, n_labels, labels, n_label)
            if code != FINE:
                return code, at
            if not _sort(labels, labels, start, n_label):
                n_label = _drop_repeats(labels, start, n_label)
            if n_label > start:
                state[5] = max(state[5], labels[n_label - 1])
        start, first = n_feature, at
        at, n_feature, code = _read_features(
            text, at, comments, n_features, base, features, values, n_feature
        )
        if code != FINE:
            return code, at
        if not _sort(features, values, start, n_feature):
            return TWICE, first
        if n_feature > start:
            state[2] = min(state[2], features[start])
            if features[n_feature - 1] > state[3]:
                state[3], state[4] = features[n_feature - 1], state[0]
            n_feature = _drop_zeros(features, values, start, n_feature)
        while text[at] != _NEWLINE:  # a comment behind the row
            at += 1
        at += 1
        label_ends[row], feature_ends[row] = n_label, n_feature
        row += 1
        state[1] += 1
    state[6], state[7], state[8] = row, n_label, n_feature
    return FINE, at


@njit(cache=True, nogil=True)
def _write_index(text, at, value):
    """Digits of a whole number at `at`; the position behind them."""
    end = at + 1
    rest = value // 10
    while rest > 0:
        rest //= 10
        end += 1
    for k in range(end - 1, at - 1, -1):
        text[k] = _ZERO + value % 10
        value //= 10
    return end


@njit(cache=True, nogil=True)
def _to_digits(value, precision):
    """Round a positive number to (significant digits, exponent of the first)."""
    exponent = np.int64(np.floor(np.log10(value)))
    most = np.int64(10) ** precision
    while True:
        power = precision - 1 - exponent
        high, low = _times_power(value, 0.0, power)
        digits = np.int64(high)
        digits += np.int64(np.floor((high - np.float64(digits)) + low + 0.5))
        if digits > most:  # the logarithm was off by one, near a power of ten
            exponent += 1
        elif digits < most // 10:
            exponent -= 1
        elif digits == most:
            return digits // 10, exponent + 1
        else:
            return digits, exponent


@njit(cache=True, nogil=True)
def _write_number(text, at, value, precision):
    """Write a number at `at` as %g does; the position behind it."""
    if value < 0:
        text[at] = _MINUS
        at += 1
        value = -value
    digits, exponent = _to_digits(value, precision)
    n_digits = precision
    while n_digits > 1 and digits % 10 == 0:
        digits //= 10
        n_digits -= 1
    scientific = exponent < _LEAST_EXPONENT + 1 or exponent >= precision
    before = 1 if scientific else exponent + 1  # digits before the dot
    if before <= 0:  # 0.000ddd
        text[at], text[at + 1] = _ZERO, _DOT
        at += 2
        for _ in range(-before):
            text[at] = _ZERO
            at += 1
        return _write_index(text, at, digits)
    if n_digits <= before:  # ddd000
        at = _write_index(text, at, digits)
        for _ in range(before - n_digits):
            text[at] = _ZERO
            at += 1
    else:
        at = _write_index(text, at, digits)
        for k in range(at, at - (n_digits - before), -1):
            text[k] = text[k - 1]
        text[at - (n_digits - before)] = _DOT
        at += 1
    if scientific:
        text[at] = _E
        text[at + 1] = _MINUS if exponent < 0 else _PLUS
        at = _write_index(text, at + 2, abs(exponent))
    return at


@njit(cache=True, nogil=True)
def write_rows(text, label_ptr, labels, feature_ptr, features, values, precision, keep_empty):
    """Write rows given by slices of two CSR matrices; the number of bytes.

    With `keep_empty`, a row without labels and features becomes `0:0`: svmlight readers skip
    empty lines.
    """
    at = 0
    label_start, feature_start = label_ptr[0], feature_ptr[0]
    for row in range(len(label_ptr) - 1):
        n_labels = label_ptr[row + 1] - label_ptr[row]
        n_features = feature_ptr[row + 1] - feature_ptr[row]
        for k in range(n_labels):
            if k:
                text[at] = _COMMA
                at += 1
            at = _write_index(text, at, labels[label_ptr[row] - label_start + k])
        for k in range(n_features):
            text[at] = _BLANK
            place = feature_ptr[row] - feature_start + k
            at = _write_index(text, at + 1, features[place])
            text[at] = _COLON
            at = _write_number(text, at + 1, values[place], precision)
        if keep_empty and n_labels + n_features == 0:
            text[at], text[at + 1], text[at + 2], text[at + 3] = _BLANK, _ZERO, _COLON, _ZERO
            at += 4
        text[at] = _NEWLINE
        at += 1
    return at
