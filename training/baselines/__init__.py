"""What a CNN has to beat: a linear model, a kernel machine and a recurrent network, served by the same service."""
