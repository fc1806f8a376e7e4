"""Gymnasium tasks, each with a scripted demonstrator beside it; `tasks.find(name)` returns one."""
