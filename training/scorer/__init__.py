"""The anomaly scorer: statistics from a classifier, a VAE and a defect network, fused into one p-value."""
