"""What the tests marked `system` need of Debian, and whether it is there."""

import os

import pytest

_REQUIRED = "NIGHTJAR_SYSTEM"


def demand_installed(missing: list[str], packages: str) -> None:
    """Skip a test that needs programs which are missing; fail it where they must be there."""
    if not missing:
        return
    sentence = f"{', '.join(missing)} is not installed: {packages}"
    if os.environ.get(_REQUIRED):
        pytest.fail(sentence)
    pytest.skip(sentence)
