"""The chain in the formats of other tools: W3C PROV-JSON and OpenLineage."""
