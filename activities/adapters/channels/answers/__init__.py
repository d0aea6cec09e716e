"""What every answer of a vendor means: one module per channel."""
