"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Two busy cores: how long one example takes says nothing about the code.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
