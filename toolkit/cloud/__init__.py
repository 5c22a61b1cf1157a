"""Promotion to AWS: the same wheel, on EC2, against the real S3."""
