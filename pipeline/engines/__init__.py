"""Where work runs: here, or on the workers of a cluster, through joblib's backends."""

from pipeline.engines.cluster import Cluster, Here

__all__ = ["Cluster", "Here"]
