"""What comes from a corpus, as a terminal may be shown it.

Ids, locators, names and messages are data. Printed as they are, one with a line break forges a
line, and one with an escape sequence moves the cursor, sets the title or hides what is beside it.
"""

from typing import Any


def printed(value: Any) -> str:
    """A value on one line, with everything spelled out that a terminal does not show as it is.

    Bytes are shown in hexadecimal digits, all else as Python shows it.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in _shown(value))


def brief(value: Any, longest: int) -> str:
    """The same of a value's beginning, at most so many characters; white space of texts is one."""
    text = _shown(" ".join(value.split()) if isinstance(value, str) else value)
    return printed(text if len(text) <= longest else text[: longest - 3] + "...")


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
