"""The fitness gate: is a patient's series of the kind that a model was trained on?"""
