"""The models that come with the package, for the tests that need them."""

from __future__ import annotations

import pytest

from dlf.codec import bundle

FOLDERS = sorted({bundle.ASSETS / bundle.ROLES[role] for role in bundle.shipped_roles()})
NAMES = [folder.name for folder in FOLDERS]
DEFAULT = bundle.ROLES[bundle.DEFAULT]
"""Name of the folder of the model that is taken when none is named."""

needs_models = pytest.mark.skipif(not FOLDERS, reason="the package has no model")
