"""Lists of statements, words and entries: RULER's variable tracking and word counts over symbols, and the phone book."""
