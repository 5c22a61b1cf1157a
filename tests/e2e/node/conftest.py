"""What a node finds around it, its job, the bundle's model, and nodes of one launch."""

from tests.support.bundles import aws, job, made, model
from tests.support.node_surroundings import surroundings
from tests.support.nodes import begin
from tests.support.spark_nodes import folder, node, parameters

__all__ = [
    "aws",
    "begin",
    "folder",
    "job",
    "made",
    "model",
    "node",
    "parameters",
    "surroundings",
]
