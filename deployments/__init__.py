"""Everything that runs it: schedules, triggers, the stack on a laptop and on a cluster."""
