"""Other people's code and ours on equal inputs, and the ledger of what was compared."""
