"""Brownian paths: functions of a seed and of time that can be asked for any increment, in any order."""
