"""What draw.py draws with: surfaces, the fruit made of them, and the studio they are lit in."""
