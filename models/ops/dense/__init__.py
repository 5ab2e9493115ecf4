"""What a layer does around its products, compiled: few rows (`native`, `rows`), whole texts (`rotary`), `training`."""
