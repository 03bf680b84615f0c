"""What comes from a corpus, as a terminal may be shown it.

Ids, locators, names and messages are data. Printed as they are, one with a line break forges a
line, and one with an escape sequence moves the cursor, sets the title or hides what is beside it.
"""

from typing import Any


def printed(value: Any, longest: int | None = None) -> str:
    """A value on one line, with everything spelled out that a terminal does not show as it is.

    Args:
        value: bytes are shown in hexadecimal digits, all else as Python shows it.
        longest: characters, beyond which it is cut; None for any number.
    """
    text = value.hex() if isinstance(value, bytes) else str(value)
    if longest is not None and len(text) > longest:
        text = text[: longest - 3] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
