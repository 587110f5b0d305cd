"""Contract tests for authors of plug-ins."""

import pytest

pytest.register_assert_rewrite("clm_core.testing.contract")
