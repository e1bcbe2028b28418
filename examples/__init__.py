"""Things to try: what a user's own training looks like, from images to artifacts."""
