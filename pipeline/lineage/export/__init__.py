"""The chain in the words of other tools: W3C PROV-JSON and OpenLineage."""
