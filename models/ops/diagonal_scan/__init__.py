"""The diagonal recurrence, real or complex. `diagonal_scan(a, x, state, provider)`."""

from models.ops.providers import Operation

diagonal_scan = Operation("diagonal", __name__, {"recurrence": "recurrence:recurrence", "chunked": "chunked:chunked"})
