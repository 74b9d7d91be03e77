"""Rolling restarts and model changes behind real proxies: requests of every kind while replicas come and go."""
