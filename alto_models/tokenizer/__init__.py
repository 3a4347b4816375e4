"""ALTo mask tokenizer: a mask becomes 1..L codes, and codes plus image features become a mask again."""
