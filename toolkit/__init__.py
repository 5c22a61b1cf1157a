"""Image features on Spark, local first."""
