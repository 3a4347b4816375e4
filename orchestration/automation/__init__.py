"""What the pipeline does by itself: notice new data, retrain, and say what has grown old."""
