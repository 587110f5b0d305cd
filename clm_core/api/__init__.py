"""REST API, webhooks and their documentation."""
