"""The report of a comparison: tables, figures and pages from rows alone."""
