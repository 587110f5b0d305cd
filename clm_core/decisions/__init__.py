"""Rules that answer with reasons: gate and policy, retrain requests, staleness, health, shadow."""
