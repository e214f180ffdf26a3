"""An item table as an export stores it: float32, float16, or int8 with a scale for each row."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedrecon.errors import InputError

KINDS = ("float32", "float16", "int8")
_LARGEST_INT8 = 127


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTable:
    """A table whose row i stands for `scales[i] * values[i]`.

    Attributes:
      values: `[num_items, k]`, of one of `KINDS`.
      scales: `[num_items]` float32, only of int8; else None, and all scales are 1.
    """

    values: np.ndarray
    scales: np.ndarray | None = None

    @classmethod
    def of(cls, table: np.ndarray, kind: str) -> StoredTable:
        """Returns a float32 table as it is stored.

        int8 is symmetric: `scale = max |row| / 127`, and values are rounded to the nearest.

        Args:
          table: `[num_items, k]` float32.
          kind: One of `KINDS`.

        Raises:
          InputError: If a value is too large for float16.
        """
        if kind == "int8":
            scales = (np.abs(table).max(axis=1) / _LARGEST_INT8).astype(np.float32)
            divisors = np.where(scales > 0, scales, 1)[:, np.newaxis]
            # The division of a denormal row may round to 128.
            values = np.clip(np.rint(table / divisors), -_LARGEST_INT8, _LARGEST_INT8)
            return cls(values.astype(np.int8), scales)
        with np.errstate(over="ignore"):
            values = table.astype(kind)
        if np.isfinite(values).sum() != np.isfinite(table).sum():
            raise InputError(
                f"the item table has values up to {np.abs(table).max():g}, and float16 ends at "
                "65504; give --quantize=float32 or int8."
            )
        return cls(values)

    def to_float32(self) -> np.ndarray:
        """Returns what the table stands for, `[num_items, k]` float32."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self.scales[:, np.newaxis]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays by the names that they have in tables.npz."""
        scales = {} if self.scales is None else {"scales": self.scales}
        return {"factors": self.values, **scales}
