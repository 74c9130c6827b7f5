"""A budget of training samples a task, chosen by what their texts are like."""

from recfound_data.selecting.select import Selection, budgets, select

__all__ = ["Selection", "budgets", "select"]
