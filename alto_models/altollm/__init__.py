"""ALToLLM: a multimodal language model (InternVL) that writes masks as tokens."""
