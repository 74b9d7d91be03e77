"""What a scorer is measured against, and how: sets of anomalies, figures, protocols, and the chapters of its report."""
