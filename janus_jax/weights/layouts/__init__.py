"""Layouts of other projects, a file each; a new one is found by lying here.

KIND: its name.
MODEL_TYPES: what a config.json beside such tensors may have as its model_type.
NEEDS_CONFIG: whether its sizes stand in a config.json beside the weights only.
recognises(names): whether tensors of these names are of this layout, and of no other.
layout(values, tensors): the table.Layout of config.json's values and the tensors that are there.

Those that are written too (convert.py) have also rows(config), config_values(...) and
unwritable(config).
"""
