"""The torch library: mask tokenizer, ALToLLM, losses, metrics, data reading, weight conversion."""
