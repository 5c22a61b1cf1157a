"""What the toolkit costs beside what people use: `python -m benchmarks` makes the table."""
