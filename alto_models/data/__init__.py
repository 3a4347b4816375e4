"""Reading prepared data for training and evaluation."""
