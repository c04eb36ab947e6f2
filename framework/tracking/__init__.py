"""Tracking in MLflow, by way of a journal. Nothing outside this package may import mlflow."""
