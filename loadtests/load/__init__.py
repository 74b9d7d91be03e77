"""What Locust's users need: what the service serves, pictures of that kind, rates over time, and a verdict."""
