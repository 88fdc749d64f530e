"""Valid files, damaged: cut, flipped, lengthened, with other numbers in them; and any bytes."""

import json

from hypothesis import strategies as st

# Numbers that formats are easily wrong about.
NUMBERS = [0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63]
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([*NUMBERS, -1, -(2**63), 10**400, 0.5, 1e308, float("nan")]),
        st.sampled_from(["", "a", "\0", "\ud800", "\x1b[2J", "../../etc/passwd", "9" * 50, "é\n"]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@st.composite
def files(draw, seeds):
    """The bytes of one of `seeds`, a few times changed; now and then any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        kind = draw(st.integers(0, 5))
        if kind == 0 and place < len(content):
            content[place] ^= draw(st.integers(1, 255))
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place:place] = draw(st.binary(max_size=8))
        elif kind == 3:
            width = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from(NUMBERS)) % 256**width
            order = draw(st.sampled_from(["big", "little"]))
            content[place : place + width] = number.to_bytes(width, order)
        elif kind == 4:
            del content[place : place + draw(st.integers(1, 16))]
        else:
            size = draw(st.integers(1, 64))
            content[place:place] = content[place : place + size] * draw(st.integers(1, 3))
    return bytes(content)


@st.composite
def documents(draw, seeds):
    """The JSON of one of `seeds` with some values replaced; or damaged as text."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        value = _replaced(draw, value)
    content = json.dumps(value).encode()
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(files([content]))
    if kind == 1:
        return content.replace(b"[", b"[" * draw(st.sampled_from([2, 100, 3000])), 1)
    return content


@st.composite
def texts(draw, seeds, words):
    """Lines of `seeds`, in which words are replaced by others; or damaged as bytes."""
    lines = list(draw(st.lists(st.sampled_from(seeds), max_size=5)))
    for _ in range(draw(st.integers(0, 3))):
        if lines:
            number = draw(st.integers(0, len(lines) - 1))
            parts = lines[number].split(" ")
            parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(words))
            lines[number] = " ".join(parts)
    content = "\n".join(lines).encode() + b"\n"
    return draw(files([content])) if draw(st.integers(0, 3)) == 0 else content


def _replaced(draw, value):
    """The value with something in it replaced, taken away or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _replaced(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], _replaced(draw, value[index]), *value[index + 1 :]]
    return draw(_VALUES)
