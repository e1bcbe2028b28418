"""Speed and memory of exporting and of the artifacts, beside the stock tools."""
