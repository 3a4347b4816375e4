"""What the jobs that train, evaluate and use the mask tokenizer share."""
