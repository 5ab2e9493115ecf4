"""Plans: what a comparison measures, read from plan.toml."""
