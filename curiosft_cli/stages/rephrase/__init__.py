"""Clean the questions of a data set through an endpoint (Table 8)."""
