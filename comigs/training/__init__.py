"""Local training: experts and router in turn, optimisers, schedules."""
