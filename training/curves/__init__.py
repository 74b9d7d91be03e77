"""Learning curves: what a classifier makes of 10, 30, 100, ... labelled images a class."""
