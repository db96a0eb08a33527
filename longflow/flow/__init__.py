"""Compute flow matching over series of scans: functions on tensors alone.

Shapes: a stack of scans is (batch, scans, channels, *spatial); times are (batch, scans). The flow step tau runs from 0
(the context) to 1 (the target) and is never called time.
"""
