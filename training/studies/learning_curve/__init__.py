"""Learning curves: the accuracy of classifiers trained with 10, 30, 100, ... labelled images per class."""
