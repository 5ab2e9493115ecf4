"""One token of a text from a record of what the step before it called: `RecordedSteps` of a model, `without_records()`."""

from models.shell.decoding.recorded_step import RecordedSteps, without_records

__all__ = ["RecordedSteps", "without_records"]
