"""How many replicas a load needs: the project's own scheduling on a virtual clock, with measured service times."""
