"""The compiled loop of `format: table`: rows in the usual spelling at the speed of memory, the others by their place in the text."""

# Inside compiled functions NumPy's and Python's numbers are one: Numba infers their types.
# mypy: disable-error-code="assignment, no-any-return, return-value"

from typing import Any

import numpy as np
from numba import njit

from canids_preprocess.formats.base import MAX_BYTES, MAX_EXTENDED_ID, MAX_STANDARD_ID
from canids_preprocess.formats.text import FD_LENGTHS

SKIP, TIME, ID, PAYLOAD, BYTE, DLC, EXTENDED, REMOTE, FD, LABEL, CHANNEL, DIRECTION = range(12)
"""What a column means."""
NUMBER, YMD, DMY, MDY, TIME_OF_DAY = range(5)
"""How a time is written."""
REFUSED = -1
"""Label of a value that is neither attacked nor normal."""

_HEX = np.full(256, 255, np.uint8)
for _digits, _first in ((b"0123456789", 0), (b"abcdef", 10), (b"ABCDEF", 10)):
    _HEX[np.frombuffer(_digits, np.uint8)] = np.arange(_first, _first + len(_digits))
_POWERS = 10.0 ** np.arange(19)  # exact
_EXACT, _MOST = 1 << 53, 900_000_000_000_000_000
_LENGTHS = np.array(FD_LENGTHS)
_BOUNDS = (MAX_STANDARD_ID, MAX_EXTENDED_ID, MAX_BYTES[False], MAX_BYTES[True])
_BLANK, _TAB, _LINE_END, _RETURN, _QUOTE = 32, 9, 10, 13, 34
_DATED, _DECIMAL = 100, 101
"""How the usual spelling of a date or time of day, and of a byte in base 10, is read."""
_POINT, _COMMA, _COLON, _MINUS, _PLUS, _SLASH = 46, 44, 58, 45, 43, 47
_DAY_S = 86400.0


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _unsigned(text: np.ndarray, begin: int, end: int) -> int:
    """Decimal digits that fill `begin:end`, nine at most, as a number; a fraction of zeros is none. -1: something else."""
    number = 0
    at = begin
    while at < end and at - begin < 10 and 48 <= text[at] <= 57:
        number = number * 10 + text[at] - 48
        at += 1
    if at == begin or at - begin > 9:
        return -1
    if at < end and text[at] == _POINT:
        at += 1
        while at < end and text[at] == 48:
            at += 1
    return number if at == end else -1


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _seconds(text: np.ndarray, begin: int, end: int, comma: bool) -> float:
    """A number with a point or (`comma`) a comma, as it is written; NaN: something else.

    Digits that make an integer below 2^53 are divided by a power of ten, both exact, so the quotient is rounded correctly (Clinger 1990).
    """
    value, decimals, at = np.int64(0), 0, begin
    digits = 0
    while at < end and 48 <= text[at] <= 57 and value < _MOST:
        value = value * 10 + text[at] - 48
        at += 1
        digits += 1
    whole, fraction = value, np.int64(0)
    if at < end and (text[at] == _POINT or (comma and text[at] == _COMMA)):
        at += 1
        while at < end and 48 <= text[at] <= 57 and value < _MOST and decimals < 18:
            value = value * 10 + text[at] - 48
            fraction = fraction * 10 + text[at] - 48
            at += 1
            decimals += 1
    if at != end or digits + decimals == 0:
        return np.nan
    if value < _EXACT or decimals == 0:
        return value / _POWERS[decimals]
    return whole + fraction / _POWERS[decimals]


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _clock(text: np.ndarray, begin: int, end: int) -> float:
    """Seconds of `hh:mm:ss`, with a fraction or not, and `Z` or a distance from UTC behind it; NaN: something else."""
    parts, at, total = 0, begin, 0.0
    while parts < 3:
        first, number = at, 0
        while at < end and at - first < 2 and 48 <= text[at] <= 57:
            number = number * 10 + text[at] - 48
            at += 1
        if at == first or (parts and number > 60):
            return np.nan
        total = total * 60 + number
        parts += 1
        if parts < 3:
            if at >= end or text[at] != _COLON:
                return np.nan
            at += 1
    if at < end and (text[at] == _POINT or text[at] == _COMMA or text[at] == _COLON):
        at += 1
        fraction, decimals = np.int64(0), 0
        while at < end and decimals < 15 and 48 <= text[at] <= 57:
            fraction = fraction * 10 + text[at] - 48
            decimals += 1
            at += 1
        total += fraction / _POWERS[decimals]
    if at < end and (text[at] == 90 or text[at] == 122):
        at += 1
    elif at < end and (text[at] == _PLUS or text[at] == _MINUS):
        sign = 1 if text[at] == _MINUS else -1
        digits, offset = 0, 0
        at += 1
        while at < end and digits < 4 and (48 <= text[at] <= 57 or text[at] == _COLON):
            if text[at] != _COLON:
                offset = offset * 10 + text[at] - 48
                digits += 1
            at += 1
        if digits != 4:
            return np.nan
        total += sign * (offset // 100 * 3600 + offset % 100 * 60)
    return total if at == end else np.nan


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _midnight(text: np.ndarray, begin: int, end: int, form: int) -> tuple[float, int]:
    """Seconds since 1970 of the date that a date and a time of day begin with, and where the latter begins; NaN: something else."""
    at, first, second, third = begin, 0, 0, 0
    for part in range(3):
        start, number = at, 0
        while at < end and at - start < 4 and 48 <= text[at] <= 57:
            number = number * 10 + text[at] - 48
            at += 1
        if at == start or at >= end:
            return np.nan, at
        if part < 2 and text[at] != _MINUS and text[at] != _SLASH and text[at] != _POINT:
            return np.nan, at
        at += part < 2
        first, second, third = second, third, number
    if text[at] != _BLANK and text[at] != 84 and text[at] != 116:
        return np.nan, at
    year, month, day = first, second, third
    if form != YMD:
        year = third
        day, month = (first, second) if form == DMY else (second, first)
    if year < 1970 or not 1 <= month <= 12 or not 1 <= day <= 31:
        return np.nan, at
    # Days since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
    year -= month <= 2
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    of_era = year % 400 * 365 + year % 400 // 4 - year % 400 // 100 + of_year
    days = year // 400 * 146097 + of_era - 719468
    return days * _DAY_S, at + 1


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _date(text: np.ndarray, begin: int, end: int, form: int) -> float:
    """Seconds since 1970 of a date and a time of day; NaN: something else."""
    seconds, at = _midnight(text, begin, end, form)
    return seconds if np.isnan(seconds) else seconds + _clock(text, at, end)


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def moment(text: np.ndarray, begin: int, end: int, form: int, comma: bool) -> float:
    """The time that fills `begin:end`, as written (a number) or in seconds; NaN if it is none."""
    if form == NUMBER:
        if begin < end and text[begin] == _MINUS:
            return -_seconds(text, begin + 1, end, comma)
        return _seconds(text, begin, end, comma)
    if form == TIME_OF_DAY:
        return _clock(text, begin, end)
    return _date(text, begin, end, form)


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _is_prefixed(text: np.ndarray, begin: int, end: int) -> bool:
    return end - begin > 2 and text[begin] == 48 and (text[begin + 1] | 32) == 120


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _number(text: np.ndarray, begin: int, end: int, base: int) -> int:
    """The number that fills `begin:end`, in base 16 or 10; -1: something else."""
    if base == 10:
        return _unsigned(text, begin, end)
    begin += 2 * _is_prefixed(text, begin, end)
    if not 0 < end - begin <= 8:
        return -1
    number = np.int64(0)
    for at in range(begin, end):
        if _HEX[text[at]] > 15:
            return -1
        number = number * 16 + _HEX[text[at]]
    return number


@njit(cache=True, inline="never")  # type: ignore[untyped-decorator]
def _bytes(text: np.ndarray, begin: int, end: int, base: int, out: np.ndarray, to: int, most: int) -> int:
    """Write the bytes that a field holds, packed (base 16) or apart, from `out[to]` on; returns how many, -1: something else."""
    count, at = 0, begin
    apart = False  # whether a separator has to come before the next byte
    while at < end:
        c = text[at]
        if c in (_BLANK, _MINUS, _COLON, _COMMA, 91, 93, 95):  # the last three: [ ] _
            apart = False
            at += 1
            continue
        if apart or count == most:
            return -1
        at += 2 * (base == 16 and _is_prefixed(text, at, end))
        if base == 16:
            if at + 1 >= end or _HEX[text[at]] > 15 or _HEX[text[at + 1]] > 15:
                return -1
            out[to + count] = 16 * _HEX[text[at]] + _HEX[text[at + 1]]
            at += 2
        else:
            number, first = 0, at
            while at < end and at - first < 3 and 48 <= text[at] <= 57:
                number = number * 10 + text[at] - 48
                at += 1
            if at == first or number > 255:
                return -1
            out[to + count] = number
            apart = True
        count += 1
    return count


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _word(text: np.ndarray, begin: int, end: int, role: int, words: np.ndarray, table: np.ndarray) -> int:
    """Value of the word that fills `begin:end`, in a role; -1 if it is none of `table` (role, begin, end, value), small letters."""
    for row in range(len(table)):
        if table[row, 0] == role and table[row, 2] - table[row, 1] == end - begin:
            at = begin
            while at < end:
                c = text[at]
                c += 32 * (65 <= c <= 90)
                if c != words[table[row, 1] + at - begin]:
                    break
                at += 1
            if at == end:
                return table[row, 3]
    return -1


@njit(cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _parse(  # noqa: PLR0912, PLR0915 (one compiled loop)
    text: np.ndarray,
    how: tuple[int, ...],
    roles: np.ndarray,
    places: np.ndarray,
    words: np.ndarray,
    word_table: np.ndarray,
    bounds: tuple[int, int, int, int],
    lengths: np.ndarray,
    timestamp: np.ndarray,
    can_id: np.ndarray,
    extended: np.ndarray,
    remote: np.ndarray,
    fd: np.ndarray,
    label: np.ndarray,
    dlc: np.ndarray,
    offset: np.ndarray,
    payload: np.ndarray,
    channel_end: np.ndarray,
    channel: np.ndarray,
    row: np.ndarray,
    odd: np.ndarray,
) -> tuple[int, int, int]:
    """Parse whole lines; returns the number of frames, of lines in another spelling, and of frames with white space around fields.

    Frame i lies in line `row[i]` (from 0), has the bytes `payload[offset[i]:offset[i + 1]]` and the channel
    `channel[channel_end[i]:channel_end[i + 1]]`; line `odd[j, 0]` is `text[odd[j, 1]:odd[j, 2]]`.
    `how`: delimiter, whether it is white space, form of times, base of IDs, base of bytes, label of other words, fields of the
    header (0: unknown), whether IDs need a flag to be extended, the character that begins a comment (0: none).
    """
    delimiter, blank, form, base_of_id, base, other, width, has_extended, comment = how
    comma = delimiter != _COMMA
    known = len(roles)
    usuals = roles.copy()
    for number in range(known):
        usuals[number] = SKIP if roles[number] == PAYLOAD and base != 16 else roles[number]
        if roles[number] == TIME and form != NUMBER:
            usuals[number] = _DATED
        elif roles[number] == BYTE and base == 10:
            usuals[number] = _DECIMAL
    letters = np.full(256, 2, np.uint8)  # label of a word of one character
    for number in range(len(word_table)):
        if word_table[number, 0] == LABEL and word_table[number, 2] - word_table[number, 1] == 1:
            letter = words[word_table[number, 1]]
            letters[letter] = word_table[number, 3]
            letters[letter - 32 * (97 <= letter <= 122)] = word_table[number, 3]
    at, lines, frames, others, spaced, size, used = 0, 0, 0, 0, 0, 0, 0
    n_cells, needed = 0, 0
    # Where the date of the last row stands, with what follows it, how long it is (-1: none yet), and its first second.
    date_at, date_size, midnight = 0, 0 if form == TIME_OF_DAY else -1, 0.0
    untimed = 0.0
    for number in range(known):
        if roles[number] == TIME:
            untimed = np.nan
        n_cells += roles[number] == BYTE
        # A row of a short frame may end before its last bytes.
        if roles[number] != BYTE and roles[number] != SKIP and not (blank and roles[number] == PAYLOAD):
            needed = number + 1
    offset[0] = 0
    channel_end[0] = 0
    while at < len(text):
        first_of_line = at
        if comment and text[at] == comment:
            while text[at] != _LINE_END:
                at += 1
            at += 1
            lines += 1
            continue
        good, trimmed = True, False
        seconds, number, announced, count = untimed, np.int64(-1), -1, 0
        is_extended, is_remote, is_fd, attacked, used_here, place = False, False, False, max(other, 0), used, 0
        # Of a column a byte: which bytes of the payload are there, and which are not 0, as bits.
        filled, nonzero = np.uint64(0), np.uint64(0)
        while good:
            # A field: from here to the next delimiter, or the end of the line.
            if blank:
                while text[at] == _BLANK or text[at] == _TAB:
                    at += 1
                if text[at] == _LINE_END or (text[at] == _RETURN and text[at + 1] == _LINE_END):
                    break
            begin = at
            role, usual = SKIP, SKIP
            if place < known:
                role, usual = roles[place], usuals[place]
            # The usual spelling is read on the way to the delimiter; whatever stops before it is looked at once more below.
            whole = False
            if usual == TIME:
                value, decimals = np.int64(0), 0
                while 48 <= text[at] <= 57:
                    value = value * 10 + text[at] - 48
                    at += 1
                digits = at - begin
                if text[at] == _POINT:
                    at += 1
                    while 48 <= text[at] <= 57:
                        value = value * 10 + text[at] - 48
                        at += 1
                        decimals += 1
                # Nineteen digits could overflow.
                whole = digits > 0 and digits + decimals <= 18 and value < _EXACT
                if whole:
                    seconds = value / _POWERS[decimals]
            elif usual == _DATED:
                # Mostly it is the date of the row above, and only the time of day is read.
                whole = date_size >= 0
                while whole and at - begin < date_size:
                    whole = text[at] == text[date_at + at - begin]
                    at += 1
                total = 0.0
                for part in range(3):
                    number_of, first = 0, at
                    while at - first < 2 and 48 <= text[at] <= 57:
                        number_of = number_of * 10 + text[at] - 48
                        at += 1
                    total = total * 60 + number_of
                    whole = whole and at > first and (part == 0 or number_of <= 60)
                    if part < 2:
                        whole = whole and text[at] == _COLON
                        at += whole
                if whole and text[at] == _POINT:
                    value, decimals = np.int64(0), 0
                    at += 1
                    while decimals < 15 and 48 <= text[at] <= 57:
                        value = value * 10 + text[at] - 48
                        at += 1
                        decimals += 1
                    total += value / _POWERS[decimals]
                if whole:
                    seconds = midnight + total
            elif usual == ID:
                if text[at] == 48 and (text[at + 1] | 32) == 120 and base_of_id == 16:
                    at += 2
                number, first = np.int64(0), at
                while at - first < 9 and _HEX[text[at]] < base_of_id:
                    number = number * base_of_id + _HEX[text[at]]
                    at += 1
                whole = 0 < at - first <= 8 + (base_of_id == 10)
            elif usual == PAYLOAD:
                count = 0
                while count < bounds[3] and _HEX[text[at]] < 16 and _HEX[text[at + 1]] < 16:
                    payload[size + count] = 16 * _HEX[text[at]] + _HEX[text[at + 1]]
                    count += 1
                    at += 2
                    if text[at] == _BLANK and not blank and _HEX[text[at + 1]] < 16:
                        at += 1
                whole = True
            elif usual == BYTE:
                cell = 0
                while at - begin < 3 and _HEX[text[at]] < base:
                    cell = cell * base + _HEX[text[at]]
                    at += 1
                whole = at > begin and cell < 256
                if whole:
                    payload[size + places[place]] = cell
                    filled |= np.uint64(1) << np.uint64(places[place])
                    nonzero |= np.uint64(cell > 0) << np.uint64(places[place])
            elif usual == _DECIMAL and at + 2 < len(text):
                # Without a branch on how many digits there are, which can hardly be predicted.
                cell = np.int64(text[at]) - 48
                second, third = np.int64(text[at + 1]) - 48, np.int64(text[at + 2]) - 48
                whole = 0 <= cell <= 9
                has_second = np.int64(0 <= second <= 9)
                has_third = has_second & np.int64(0 <= third <= 9)
                cell += has_second * (9 * cell + second)
                cell += has_third * (9 * cell + third)
                whole = whole and cell < 256
                if whole:
                    at += 1 + has_second + has_third
                    payload[size + places[place]] = cell
                    filled |= np.uint64(1) << np.uint64(places[place])
                    nonzero |= np.uint64(cell > 0) << np.uint64(places[place])
            elif usual == DLC:
                announced = 0
                while at - begin < 3 and 48 <= text[at] <= 57:
                    announced = announced * 10 + text[at] - 48
                    at += 1
                whole = at > begin
            elif usual == LABEL:
                # One letter or digit.
                value = letters[text[at]]
                at += 1
                whole = value < 2
                attacked = value
            if not whole or not (text[at] == delimiter or text[at] == _LINE_END):
                at = begin
                whole = False
            if not whole:
                if text[at] == _QUOTE:
                    begin += 1
                    at += 1
                    while text[at] != _QUOTE and text[at] != _LINE_END:
                        at += 1
                    good = text[at] == _QUOTE
                    end = at
                    at += good
                    while text[at] == _BLANK:
                        at += 1
                    ends = text[at] == delimiter or text[at] == _LINE_END or text[at] == _RETURN
                    good = good and (ends or (blank and text[at] == _TAB))
                else:
                    while text[at] != delimiter and text[at] != _LINE_END and not (blank and text[at] == _TAB):
                        at += 1
                    end = at
                    if text[at] == _LINE_END and end > begin and text[end - 1] == _RETURN:
                        end -= 1
                if role != SKIP and not blank:
                    raw = end - begin
                    while begin < end and (text[begin] == _BLANK or text[begin] == _TAB):
                        begin += 1
                    while begin < end and (text[end - 1] == _BLANK or text[end - 1] == _TAB):
                        end -= 1
                    trimmed = trimmed or raw != end - begin
                if role == SKIP:
                    good = good and (begin == end or not width or place < width)
                elif role in (LABEL, DIRECTION) or EXTENDED <= role <= FD:
                    value = _word(text, begin, end, role, words, word_table)
                    if role == LABEL:
                        attacked = value if value >= 0 else other
                        good = good and attacked >= 0 and begin < end
                    elif role == EXTENDED:
                        is_extended = value == 1
                    elif role == REMOTE:
                        is_remote = value == 1
                    elif role == FD:
                        is_fd = value == 1
                    else:  # a direction that stands for no frame
                        good = good and value < 0
                elif role == CHANNEL:
                    for source in range(begin, end):
                        channel[used_here] = text[source]
                        used_here += 1
                elif role == TIME:
                    seconds = moment(text, begin, end, form, comma)
                    if YMD <= form <= MDY and not np.isnan(seconds):
                        midnight, date_size = _midnight(text, begin, end, form)
                        date_at, date_size = begin, date_size - begin
                elif role == ID:
                    number = _number(text, begin, end, base_of_id)
                elif role == PAYLOAD:
                    count = _bytes(text, begin, end, base, payload, size, bounds[3])
                    good = good and count >= 0
                elif role == DLC:
                    announced = _unsigned(text, begin, end)
                    good = good and announced >= 0
                elif begin < end:  # a byte
                    cell = _number(text, begin, end, base)
                    good = good and 0 <= cell < 256
                    payload[size + places[place]] = cell
                    filled |= np.uint64(1) << np.uint64(places[place])
                    nonzero |= np.uint64(cell > 0) << np.uint64(places[place])
            place += 1
            if text[at] == _LINE_END or text[at] == _RETURN:
                break
            at += 1
        good = good and place >= needed and not np.isnan(seconds) and 0 <= number <= bounds[1]
        wide = number > bounds[0]
        if not has_extended:
            is_extended = wide
        good = good and (is_extended or not wide)
        if good and is_remote:
            count = 0
            good = 0 <= announced <= bounds[2]
        elif good:
            if n_cells:
                count = announced
                if announced < 0:
                    count = 0
                    while count < n_cells and filled >> np.uint64(count) & np.uint64(1):
                        count += 1
                elif count > bounds[2] and count % 8 == 0 and n_cells <= bounds[2]:
                    count //= 8  # in bits
                good = count <= n_cells
                # Behind the payload, columns hold nothing, or zeros of copies that fill them up.
                if good:
                    behind = nonzero if announced >= 0 else filled
                    within = ~np.uint64(0) >> np.uint64(64 - count) if count else np.uint64(0)
                    good = filled & within == within and behind & ~within == 0
            # A DLC may count bits, or be the code of a longer CAN FD frame.
            if announced >= 0 and announced != count:
                code = 9 <= announced <= 15 and (lengths[announced] == count or (count == bounds[2] and not is_fd))
                good = good and ((count > 0 and announced == 8 * count) or code)
            is_fd = is_fd or count > bounds[2]
            if good and count > bounds[2]:
                good = False
                for number_of in range(len(lengths)):
                    good = good or lengths[number_of] == count
        if not good:
            at = first_of_line
        while text[at] != _LINE_END:
            at += 1
        if good:
            timestamp[frames] = seconds
            can_id[frames] = number
            extended[frames] = is_extended
            remote[frames] = is_remote
            fd[frames] = is_fd and not is_remote
            label[frames] = attacked
            dlc[frames] = announced if is_remote else count
            size += count
            used = used_here
            spaced += trimmed
            row[frames] = lines
            frames += 1
            offset[frames] = size
            channel_end[frames] = used
        else:
            odd[others, 0] = lines
            odd[others, 1] = first_of_line
            odd[others, 2] = at
            others += 1
        at += 1
        lines += 1
    return frames, others, spaced


def parse(
    text: np.ndarray, most: int, how: tuple[int, ...], *declared: np.ndarray
) -> tuple[dict[str, Any], np.ndarray, int]:
    """The frames of whole lines, `most` at most, by name of array; the lines in another spelling; and how many were trimmed.

    `text` ends with a line end. `how` and `declared` (`roles`, `places`, `words`, `word_table`): as in the loop.
    """
    arrays: dict[str, np.ndarray] = {
        "timestamp": np.empty(most),
        "can_id": np.empty(most, np.uint32),
        **{name: np.empty(most, np.bool_) for name in ("extended", "remote", "fd")},
        "label": np.empty(most, np.uint8),
        "dlc": np.empty(most, np.uint8),
        "offset": np.empty(most + 1, np.int64),
        "payload": np.empty(len(text) // 2 + MAX_BYTES[True] + 1, np.uint8),
        "channel_end": np.empty(most + 1, np.int64),
        "channel": np.empty(len(text) + 1 if CHANNEL in declared[0] else 1, np.uint8),
        "row": np.empty(most, np.int64),
    }
    odd = np.empty((most, 3), np.int64)
    arguments: tuple[Any, ...] = (text, how, *declared, _BOUNDS, _LENGTHS, *arrays.values(), odd)
    n, others, spaced = _parse(*arguments)
    size, used = int(arrays["offset"][n]), int(arrays["channel_end"][n])
    ends = {"payload": size, "channel": used, "offset": n + 1, "channel_end": n + 1}
    return {name: array[: ends.get(name, n)] for name, array in arrays.items()}, odd[:others], spaced
