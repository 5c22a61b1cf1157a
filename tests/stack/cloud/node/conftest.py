"""What a node finds around it, its job, and nodes of one launch."""

from tests.support.node_surroundings import surroundings
from tests.support.nodes import begin
from tests.support.spark_nodes import folder, node, parameters

__all__ = ["begin", "folder", "node", "parameters", "surroundings"]
