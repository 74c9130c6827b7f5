"""S2Sched, which decides how many samples of each task a step holds. It knows nothing of models, only of losses."""
