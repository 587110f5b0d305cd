"""What a model of your own is tested with."""

import pytest

pytest.register_assert_rewrite("clm_core.testing.contract")
