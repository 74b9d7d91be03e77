"""The evaluation of a scorer: sets of anomalies, metrics, protocols, and the chapters of its report."""
