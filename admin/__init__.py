"""The web tier: a dashboard for people and a proxy for OpenAI clients, run by gunicorn as a child of the supervisor."""
