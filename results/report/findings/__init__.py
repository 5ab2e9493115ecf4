"""What may be said of a comparison as a whole: pairwise orderings, verdicts on claims."""
