"""What is told to MLflow, by way of a journal. Nothing else may import mlflow."""
