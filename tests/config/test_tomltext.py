"""TOML as text: comments keep their place, values come back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from jobber.config import tomltext

TEXT = """\
# at the top

[a]  # of a
# of x
x = "# no comment" # beside x
y = [ # first
  "one", # inside
  # "two",
]  # last
# of a, at its end


# far from z

# near z
z = 1
[ "b.c".d ]
'k' = 1 # beside k
# at the end
"""


def test_a_comment_belongs_to_what_comes_next() -> None:
    found = {path: (comments.above, comments.beside) for path, comments in tomltext.comments(TEXT).items()}
    assert found == {
        ("a",): (["# at the top"], "# of a"),
        # What stands inside of a value belongs to its key.
        ("a", "x"): (["# of x"], "# beside x"),
        ("a", "y"): (["# inside", '# "two",', "# last"], "# first"),
        ("a", "z"): (["# of a, at its end", "", "# far from z", "", "# near z"], ""),
        ("b.c", "d"): ([], ""),
        ("b.c", "d", "k"): ([], "# beside k"),
        (): (["# at the end"], ""),
    }


def test_a_comment_right_below_the_last_key_stays_with_its_section() -> None:
    found = tomltext.comments("[a]\nx = 1\n# y = 2\n# more\n\n# of b\n[b]\n# alone\n\n[c]\nz = 1\n# of d\n[d]\n")
    assert found["a",].below == ["# y = 2", "# more"]
    assert found["b",] == tomltext.Comments(above=["# of b"], below=["# alone"])
    assert (found["c",].below, found["d",].above) == ([], ["# of d"])


_SCALARS = (
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)


@examples(deadline=None)  # other tests run beside these
@given(st.lists(st.text(min_size=1), min_size=1, max_size=3), _SCALARS | st.lists(st.text()))
def test_headings_and_values_come_back_as_they_were(path: list[str], value: Any) -> None:
    found: Any = tomllib.loads(f"{tomltext.heading(tuple(path))}\nkey = {tomltext.value(value)}\n")
    for part in path:
        found = found[part]
    assert found == {"key": value}
    assert isinstance(found["key"], type(value))


@examples(deadline=None)  # other tests run beside these
@given(st.text("ab.[]=#'\"\n ", max_size=60))
def test_no_text_is_too_odd(text: str) -> None:
    tomltext.comments(text)
