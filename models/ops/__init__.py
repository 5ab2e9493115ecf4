"""Operations: one folder each, with its reference recurrence and its fast forms; `providers` chooses among them."""
