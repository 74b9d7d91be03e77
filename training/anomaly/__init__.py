"""The anomaly scorer: what a classifier, a VAE and a defect network know of an image, fused into one p-value."""
