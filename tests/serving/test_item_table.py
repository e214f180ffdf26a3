"""An item table as it is stored."""

import numpy as np
import pytest

from fedrecon.errors import InputError
from fedrecon.serving.item_table import KINDS, StoredTable

TABLE = np.array([[1.0, -0.5, 0.0039], [0.0, 0.0, 0.0], [-254.0, 2.0, 1.1]], np.float32)


def test_int8_has_the_largest_entry_of_a_row_at_127():
    table = StoredTable.of(TABLE, "int8")
    assert table.values.dtype == np.int8
    np.testing.assert_array_equal(table.values, [[127, -64, 0], [0, 0, 0], [-127, 1, 1]])
    np.testing.assert_allclose(table.scales, [1 / 127, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(table.to_float32()[2], [-254, 2, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_no_entry_is_off_by_more_than_half_a_step(kind):
    drawn = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    steps = {"float32": 0, "float16": np.abs(drawn) / 1024, "int8": np.abs(drawn).max(1) / 127}
    step = np.broadcast_to(np.transpose(steps[kind]), drawn.T.shape).T
    table = StoredTable.of(drawn, kind)
    assert (np.abs(table.to_float32() - drawn) <= 0.5001 * step).all()
    assert set(table.arrays()) == ({"factors", "scales"} if kind == "int8" else {"factors"})
    assert table.arrays()["factors"].dtype == kind


def test_denormal_rows_stay_in_range():
    table = StoredTable.of(np.full((1, 2), 1e-45, np.float32), "int8")
    assert np.abs(table.values.astype(int)).max() <= 127
    assert np.isfinite(table.to_float32()).all()


def test_values_beyond_float16_are_refused():
    with pytest.raises(InputError, match="values up to 70000, and float16 ends at 65504"):
        StoredTable.of(np.full((1, 2), 7e4, np.float32), "float16")
