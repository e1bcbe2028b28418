"""What goes out: one artifact per published or deployable format."""
