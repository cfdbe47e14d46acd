"""`curiosft report`: one HTML file of any runs, from their folders alone."""
