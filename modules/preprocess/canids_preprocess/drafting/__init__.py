"""What a draft of a manifest guesses and how it is written: names, entries, mappings of tables, text."""
