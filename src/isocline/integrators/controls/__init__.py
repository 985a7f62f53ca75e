"""Controls: paths made of data, which drive controlled differential equations."""
