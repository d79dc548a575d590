"""What every room stands on and no number depends on: errors, whole writes, stamps, parameters, what systems differ in.

Contract: no stage names this room in dvc.yaml, for nothing here decides a result; tests/test_golden.py holds that.
"""
