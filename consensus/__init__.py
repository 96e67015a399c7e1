"""Which block is right: agreement, lottery and Yuma, as functions of values."""
