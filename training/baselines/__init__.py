"""Baselines for a CNN: a linear model, a kernel machine and a recurrent network, with the same graph signature."""
