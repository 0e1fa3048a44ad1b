"""Stage 5: finished runs as MLflow shows them. Files are the truth, MLflow a view of it."""
