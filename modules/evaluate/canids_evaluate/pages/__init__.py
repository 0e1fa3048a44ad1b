"""Tables, figures, sentences, cards and the HTML page."""
