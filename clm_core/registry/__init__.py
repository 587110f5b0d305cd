"""MLflow: versions, integrity and the promotion protocol."""
