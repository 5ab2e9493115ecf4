"""What all commands share: their flags, the comparison that one names, and how it prints and fails."""
