"""Tracking in MLflow, by way of a journal. Nothing outside this room may import mlflow."""
