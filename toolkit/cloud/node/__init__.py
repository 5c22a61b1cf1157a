"""What runs on an instance: its boot script, its work, its log, its Spark, what EC2 tells it."""
