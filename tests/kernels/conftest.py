"""The kernel's own tests use it, whatever the environment says of the others."""

import pytest


@pytest.fixture(autouse=True)
def _kernel_as_by_default(monkeypatch):
    monkeypatch.delenv("T2AUX_KERNEL", raising=False)
