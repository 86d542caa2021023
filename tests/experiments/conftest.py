"""Tests that call what a command calls, without the command."""

import pytest

from experiments.startup import start


@pytest.fixture(autouse=True, scope="session")
def started():
    start()
