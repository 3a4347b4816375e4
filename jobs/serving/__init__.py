"""A trained ALToLLM as an MLflow pyfunc model: what `mlflow models serve` answers with."""
