"""What watches the services: objectives, and the rules and dashboards that are made of them."""
