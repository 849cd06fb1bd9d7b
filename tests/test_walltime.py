"""Wall time: counted over sittings, however they end."""

import pytest

from engram import walltime


def test_time_counts_over_sittings_however_they_end(tmp_path):
    for error in (KeyboardInterrupt, ValueError):
        before = walltime.spent(tmp_path)
        with pytest.raises(error), walltime.timed(tmp_path):
            raise error
        assert walltime.spent(tmp_path) > before
