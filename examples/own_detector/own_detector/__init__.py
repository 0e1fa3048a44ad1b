"""Three detectors in plain scikit-learn that take the place of train_gnn."""
