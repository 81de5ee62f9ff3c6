"""Who a carrier's request proves to be, and what it may do with calls and streams."""
