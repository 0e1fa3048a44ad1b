"""Tables, figures, sentences, provenance, cards and the HTML page."""
